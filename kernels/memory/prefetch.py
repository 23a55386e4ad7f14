"""Asking memory, while a product is made, for the factor that will be packed next.

Packing reads a little of one row after another, and rows are far apart. A CPU foresees where a
program reads on in a row, and in some 16 rows at the same time. What it does not foresee, the core
would wait for. So avx512_bf16.py asks for a line with each pair of k that it multiplies. (In
float32, where a product takes twice as long, that brought nothing; on tiles it was not tried.)
"""

from npgpt.kernels.codegen.jit import jit


@jit
def lines(x, call, count):
    """The places in x (n, K) that a call, counted from 0, fetches: the first, and how far apart.

    There are `count` of them; places are in elements. Where rows are dense a call fetches a row;
    where columns are, a cache line of each of `count` k. The calls after those that had all of x
    fetch its first place, which costs nothing.
    """
    n, K = x.shape
    line, pieces = 64 // x.itemsize, (K + count - 1) // count
    down, along = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    if along == 1 and call < n:
        return down * call, min(line, pieces)
    across = (n + line - 1) // line
    if along != 1 and call < across * pieces:
        return down * line * (call % across) + along * count * (call // across), along
    return 0, 0

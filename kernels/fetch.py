"""Asking memory, while a product is made, for the factor that will be packed next.

A core that reads a matrix of its own accord waits for most of the lines: there are too many rows,
and too little of each, for it to foresee the next. That was a tenth of a training step's products.
"""

from npgpt.kernels.jit import jit

LINE = 16  # float32, 64 bytes


@jit
def lines(x, call, count):
    """`count` places in x (n, K) that a call fetches: the first, and how far apart, in elements.

    The calls from 0 on have others each, until all of x was had; then the last ones again.
    """
    n, K = x.shape
    if n * K == 0:
        return 0, 0
    down, along = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    if along == 1:  # a row, some places to a line
        return down * min(call, n - 1), (K + count - 1) // count
    across, below = (n + LINE - 1) // LINE, (K + count - 1) // count
    call = min(call, across * below - 1)
    return down * LINE * (call % across) + along * count * (call // across), along

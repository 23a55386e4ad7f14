"""Prefetching: an element, and where to do it while one block is multiplied, for the next one.

Packing reads a little of many rows that are far apart. The hardware prefetcher follows some 16
streams at a time; beyond these the core would wait. So avx512_bf16.py prefetches one cache line
with each pair of k that it multiplies. (In float32, where a product takes twice as long, that
brought nothing; on AMX tiles it was not tried.)
"""

from numba import types
from numba.extending import intrinsic

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import LINE, Matrix


@intrinsic
def prefetch_for_write(typing_context, x, i, j):
    """Prefetch the cache line of x[i, j], which will be written; rows are contiguous."""

    def generate(context, builder, signature, arguments):
        array, i, j = arguments
        x = Matrix(context, builder, signature.args[0], array)
        x.prefetch(x.pointer(i, j), write=True)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp), generate


@jit
def prefetch_range(x, call, count):
    """The offset of the first element of x (n, K) that a call prefetches, and the stride to others.

    Each call, counted from 0, prefetches `count` of them. Where rows are contiguous that is a row;
    where columns are, a cache line of each of `count` k. The calls after those that had all of x
    prefetch its first element, which costs nothing.
    """
    n, K = x.shape
    line, pieces = LINE // x.itemsize, (K + count - 1) // count
    row_stride, column_stride = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    if column_stride == 1 and call < n:
        return row_stride * call, min(line, pieces)
    lines = (n + line - 1) // line
    if column_stride != 1 and call < lines * pieces:
        offset = row_stride * line * (call % lines) + column_stride * count * (call // lines)
        return offset, column_stride
    return 0, 0

"""What attention does in the rows of a head, in any precision."""

import numpy as np

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.exponential import exp, largest


@jit
def head(x, i, hs):
    """The i-th hs channels of x (T, channels)."""
    return x[:, i * hs : (i + 1) * hs]


@jit
def queries_keys_values(qkv, h, hs):
    """q, k and v (T, hs) of head h, from qkv (T, 3C)."""
    NH = qkv.shape[1] // (3 * hs)
    return head(qkv, h, hs), head(qkv, NH + h, hs), head(qkv, 2 * NH + h, hs)


@jit
def turn(x, out):
    """out (T, hs) = x (hs, T), transposed."""
    for t in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[t, c] = x[c, t]


@jit
def softmax(row, scale):
    """row (T,) becomes the softmax of scale * row -> the log of the sum of the exponentials."""
    highest = largest(row)
    total = row.dtype.type(0)
    for s in range(row.size):
        row[s] = exp((row[s] - highest) * scale)
        total += row[s]
    for s in range(row.size):
        row[s] /= total
    return highest * scale + np.log(total)


@jit
def causal_softmax(row, past, scale):
    """As softmax, of the first `past` of row; the others become 0."""
    logsum = softmax(row[:past], scale)
    row[past:] = 0
    return logsum


@jit
def causal_softmax_backward(row, drow, past, scale, logsum, total):
    """The scores in row become att again, datt in drow the gradient of the scores, of the past.

    total, the sum of att * datt, is that of out * dout (Dao et al. 2022, appendix B.2). The future
    is computed too: where all of row is whole vectors, there is no rest to go through one by one.
    """
    for s in range(row.size):
        row[s] = exp(row[s] * scale - logsum)
        drow[s] = row[s] * (drow[s] - total) * scale
    row[past:] = 0
    drow[past:] = 0


@jit
def dot(x, y):
    """The sum of x (N,) * y (N,)."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total

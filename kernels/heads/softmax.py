"""The softmax of a row of attention scores, causal or not, and its backward pass."""

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.exponential import exp, row_max


@jit
def softmax(row, scale):
    """row (T,) becomes the softmax of scale * row -> its highest score, the sum of exponentials."""
    highest = row_max(row)
    total = row.dtype.type(0)
    for s in range(row.size):
        row[s] = exp((row[s] - highest) * scale)
        total += row[s]
    for s in range(row.size):
        row[s] /= total
    return highest, total


@jit
def causal_softmax(row, n_past, scale):
    """As softmax, of the first n_past of row; the others become 0."""
    highest, total = softmax(row[:n_past], scale)
    row[n_past:] = 0
    return highest, total


@jit
def causal_softmax_backward(row, drow, n_past, scale, highest, total, dot_out):
    """The scores in row become att again, datt in drow the gradient of the scores, of the past.

    highest and total are what causal_softmax returned. dot_out, the sum of att * datt, is that of
    out * dout (Dao et al. 2022, appendix B.2). The future is computed too, and set to 0 after that:
    a row of whole vectors leaves no scalar remainder.
    """
    for s in range(row.size):
        row[s] = exp((row[s] - highest) * scale) / total
        drow[s] = row[s] * (drow[s] - dot_out) * scale
    row[n_past:] = 0
    drow[n_past:] = 0


@jit
def dot(x, y):
    """The sum of x (N,) * y (N,)."""
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total

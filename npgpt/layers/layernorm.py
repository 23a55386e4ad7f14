"""Layer normalisation (Ba et al. 2016): out = (x - mean) * rstd * w + b; see doc/layernorm/."""

from npgpt.layers.grads import write_grads

EPS = 1e-5


def layernorm_forward(x, w, b):
    """Normalise each position over its channels: x (B, T, C), w and b (C,) -> out (B, T, C), cache.

    mean and rstd = 1 / sqrt(variance + 1e-5) are taken over the C channels, in the dtype of x.
    """
    mean = x.mean(-1, keepdims=True)  # (B, T, 1)
    xshift = x - mean  # (B, T, C)
    rstd = ((xshift**2).mean(-1, keepdims=True) + EPS) ** -0.5  # (B, T, 1)
    return xshift * rstd * w + b, (x, w, mean, rstd)


def layernorm_backward(dout, cache, out=None, add=False):
    """dout (B, T, C) -> dx (B, T, C), dw (C,), db (C,).

    Given out=(dw, db), both are written there or, with add, added to what is there.
    """
    x, w, mean, rstd = cache
    xhat = (x - mean) * rstd  # (B, T, C)
    dxhat = dout * w  # (B, T, C)
    # x reaches xhat along three paths: directly, through the mean and through the variance.
    dx = dxhat - dxhat.mean(-1, keepdims=True) - xhat * (dxhat * xhat).mean(-1, keepdims=True)
    rows = tuple(range(dout.ndim - 1))
    dw, db = (dout * xhat).sum(rows), dout.sum(rows)
    return dx * rstd, *write_grads((dw, db), out, add)

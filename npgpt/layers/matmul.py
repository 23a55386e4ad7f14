"""The linear layer: out = x @ w.T + b, with weights as PyTorch and llm.c keep them, (out, in)."""

from npgpt.layers.grads import write_grads


def matmul_forward(x, w, b=None):
    """Map x (B, T, C) with w (OC, C) and, if there is one, b (OC,) -> out (B, T, OC), cache."""
    *BT, C = x.shape
    out = x.reshape(-1, C) @ w.T  # (B*T, OC): one product of two matrices, not B of them
    if b is not None:
        out += b
    return out.reshape(*BT, -1), (x, w, b)


def matmul_backward(dout, cache, out=None, add=False):
    """dout (B, T, OC) -> dx (B, T, C), dw (OC, C), db (OC,) or None without a bias.

    Given out=(dw, db), both are written there or, with add, added to what is there.
    """
    x, w, b = cache
    OC, C = w.shape
    dout = dout.reshape(-1, OC)  # (B*T, OC)
    dx = (dout @ w).reshape(x.shape)  # (B, T, C)
    dw = dout.T @ x.reshape(-1, C)  # (OC, C)
    db = None if b is None else dout.sum(0)  # (OC,)
    return dx, *write_grads((dw, db), out, add)

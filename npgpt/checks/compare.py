"""A model's logits and gradients beside those that PyTorch computed, as a printed table."""

import numpy as np


def check_logits(logits, state, tolerance):
    print(f"\n{'':<9} {'abs.diff':>9} {'rel.diff':>9} {'L2.diff':>9}")
    return show("logits", logits, state.logits, tolerance)


def check_gradients(grads, expected, tolerance):
    # A gradient that is truly 0 comes out as rounding error, another one in each program.
    largest = np.abs(expected.flat).max()
    rounding = np.finfo(np.float32).eps * largest if np.isfinite(largest) else 0.0
    ok = True
    for name, view in grads.items():
        reference = getattr(expected, name)
        ok &= show(f"d{name}", view, reference, tolerance, l2=True, rounding=rounding)
    if expected.wte_padding is not None and expected.wte_padding.any():
        row = int(expected.wte_padding.any(-1).argmax())
        print(f"dwte: NOT OK, the state has a gradient in padding row {row}: it must be 0")
        ok = False
    print(
        "(abs.diff: the largest; rel.diff: that, over the largest expected value; L2.diff: the"
        "\n norm of the difference over the norm of what is expected)"
    )
    return ok


def show(name, actual, expected, tolerance, l2=False, rounding=0.0):
    """Print how far apart two arrays are -> whether that is within the tolerance.

    The tolerance is for the largest absolute difference or, with l2, for the relative L2 norm and
    for the largest difference over the largest expected value; a tensor that is nowhere off by more
    than rounding is within, too. NaN never is.
    """
    tiny = np.finfo(np.float32).tiny
    diff = actual - expected
    absolute = np.abs(diff).max()
    relative = absolute / max(np.abs(expected).max(), tiny)
    l2_norm = np.linalg.norm(diff) / max(np.linalg.norm(expected), tiny)
    if l2:
        ok = bool(l2_norm <= tolerance and relative <= tolerance or absolute <= rounding)
    else:
        ok = bool(absolute <= tolerance)
    verdict = "OK"
    if not ok:
        at = np.unravel_index(np.nan_to_num(np.abs(diff), nan=np.inf).argmax(), diff.shape)
        where = f" at {[*map(int, at)]}" if at else ""
        verdict = f"NOT OK{where}: {actual[at]:.6g}, expected {expected[at]:.6g}"
    print(f"{name:<9} {absolute:9.1e} {relative:9.1e} {l2_norm:9.1e}  {verdict}")
    return ok

"""Print a model's logits and gradients compared with PyTorch's."""

import numpy as np


def check_logits(logits, expected, tolerance):
    """Print how far logits (B, T, V) are from the expected ones -> whether within tolerance."""
    print(f"\n{'':<9} {'abs.diff':>9} {'rel.diff':>9} {'L2.diff':>9}")
    return print_comparison("logits", logits, expected, tolerance)


def check_gradients(grads, expected, tolerance):
    """Print how far the sixteen gradients are from the expected ones -> whether all are within."""
    # A gradient that is exactly 0 comes out as rounding noise, different in each program.
    largest = np.abs(expected.flat).max()
    rounding = np.finfo(np.float32).eps * largest if np.isfinite(largest) else 0.0
    ok = True
    for name, view in grads.items():
        reference = getattr(expected, name)
        ok &= print_comparison(f"d{name}", view, reference, tolerance, l2=True, rounding=rounding)
    if expected.wte_padding is not None and expected.wte_padding.any():
        row = int(expected.wte_padding.any(-1).argmax())
        print(f"dwte: NOT OK, padding row {row} of the state has a nonzero gradient")
        ok = False
    print(
        "(a actual, e expected: abs.diff: max |a - e|; rel.diff: max |a - e| / max |e|;"
        "\n L2.diff: L2 norm of a - e / L2 norm of e)"
    )
    return ok


def print_comparison(name, actual, expected, tolerance, l2=False, rounding=0.0):
    """Print how far apart two arrays are -> whether that is within the tolerance.

    The tolerance bounds the largest absolute difference or, with l2, both the relative L2 norm and
    the largest difference over the largest expected value. Differences up to `rounding` then pass,
    too; NaN never does.
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

"""Layer normalisation step by step in NumPy, checked, and a reference file for other languages.

    python doc/layernorm/layernorm.py [FILE]

The derivation of every line is in layernorm.md, beside this script. The gradients are checked by
central differences and, where PyTorch is installed, against its autograd. The exit status is 1 if
a check fails. If all is OK, FILE (ln.bin beside this script by default) is written: little-endian
throughout, no gaps between the arrays, the last index of each running fastest.

    B, T, C             3 numbers   int32: 3, 4, 5
    x                   B * T * C   float32 from here on: the input
    w, b                C each      the weight and the bias
    out                 B * T * C   the output
    mean, rstd          B * T each  of each position's C values; rstd = 1 / sqrt(variance + 1e-5)
    dout                B * T * C   the gradient of the loss with respect to out
    dx                  B * T * C   the gradients that the backward pass has to find
    dw, db              C each

x, w, b and dout are exact; the others are computed from them in float64 and rounded once.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed

from npgpt.cli import Parser, program
from npgpt.files import atomic_write
from npgpt.gradcheck import gradcheck

EPS = 1e-5
TOLERANCE = 1e-10  # float64 against float64: some 1e-15 is to be expected


def layernorm_forward(x, w, b):
    """x (B, T, C), w and b (C,) -> out (B, T, C), cache."""
    C = x.shape[-1]
    mean = x.sum(-1, keepdims=True) / C  # (B, T, 1)
    xshift = x - mean  # (B, T, C)
    var = (xshift**2).sum(-1, keepdims=True) / C  # (B, T, 1), divided by C, not by C - 1
    rstd = 1 / np.sqrt(var + EPS)  # (B, T, 1)
    xhat = xshift * rstd  # (B, T, C)
    out = xhat * w + b  # (B, T, C)
    return out, (x, w, mean, rstd)


def layernorm_backward(dout, cache):
    """dout (B, T, C) -> dx (B, T, C), dw (C,), db (C,)."""
    x, w, mean, rstd = cache
    C = x.shape[-1]
    xshift = x - mean  # (B, T, C), computed again: cheaper than to keep it
    xhat = xshift * rstd  # (B, T, C)

    # out = xhat * w + b, with the same w and b at every position: their gradients add up
    dw = (dout * xhat).sum((0, 1))  # (C,)
    db = dout.sum((0, 1))  # (C,)
    dxhat = dout * w  # (B, T, C)

    # xhat = (x - mean) * rstd
    direct = dxhat * rstd  # (B, T, C)
    dmean = -(dxhat * rstd).sum(-1, keepdims=True)  # (B, T, 1)
    drstd = (dxhat * xshift).sum(-1, keepdims=True)  # (B, T, 1)

    # mean = x.sum(-1) / C
    through_mean = dmean / C  # (B, T, 1), the same for each channel

    # rstd = (var + EPS) ** -0.5, var = (xshift**2).sum(-1) / C; var does not move with the mean,
    # because the xshift of a position add up to zero
    dvar = drstd * -0.5 * rstd**3  # (B, T, 1)
    through_variance = dvar * 2 * xshift / C  # (B, T, C)

    dx = direct + through_mean + through_variance  # (B, T, C)
    return dx, dw, db


def autograd(x, w, b, dout):
    """out, dx, dw and db by PyTorch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    x, w, b = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    out = torch.nn.functional.layer_norm(x, x.shape[-1:], w, b, EPS)
    out.backward(torch.tensor(dout))
    return {"out": out.detach().numpy()} | {
        name: a.grad.numpy() for name, a in (("dx", x), ("dw", w), ("db", b))
    }


def check_against(reference, computed):
    """Print the largest difference of each array; true if all are within TOLERANCE."""
    ok = True
    for name, values in reference.items():
        error = np.abs(values - computed[name]).max()
        ok &= bool(error <= TOLERANCE)
        print(f"{name:<10} {error:9.1e}  {'OK' if error <= TOLERANCE else 'NOT OK'}")
    return ok


@program
def main(argv=None, prog=None):
    """Check layernorm's gradients and write the reference file; the exit status is 0 if all is OK,
    else 1."""
    parser = Parser(prog=prog, description=main.__doc__)
    default = Path(__file__).with_name("ln.bin")
    parser.add_argument("file", nargs="?", default=default, help="default: ln.bin beside this file")
    path = parser.parse_args(argv).file

    # What the file holds is float32; what is computed from it here is float64.
    B, T, C = 3, 4, 5
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((B, T, C)) * 2 + 0.5).astype("f4").astype("f8")  # (B, T, C)
    w, b = rng.standard_normal((2, C)).astype("f4").astype("f8")  # each (C,)
    dout = rng.standard_normal((B, T, C)).astype("f4").astype("f8")  # (B, T, C)
    out, cache = layernorm_forward(x, w, b)
    _, _, mean, rstd = cache
    dx, dw, db = layernorm_backward(dout, cache)

    print("central differences in float64")
    report = gradcheck(layernorm_forward, layernorm_backward, x, w, b)
    print(report)
    ok = bool(report)
    reference = autograd(x, w, b, dout)
    if reference is None:
        print("PyTorch's autograd: skipped, PyTorch is not installed")
    else:
        print("PyTorch's autograd in float64, the largest absolute difference")
        ok &= check_against(reference, {"out": out, "dx": dx, "dw": dw, "db": db})
    if not ok:
        print("a check failed: no reference file is written")
        return 1

    with atomic_write(path) as file:
        file.write(np.array([B, T, C], "<i4").tobytes())
        for array in (x, w, b, out, mean, rstd, dout, dx, dw, db):
            file.write(array.astype("<f4").tobytes())
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

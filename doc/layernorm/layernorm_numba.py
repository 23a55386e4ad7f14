"""Layer normalisation in explicit loops, checked against the file that layernorm.py writes.

    python doc/layernorm/layernorm_numba.py [FILE]

The loops run over b, t and c as they would in C, Rust or Go, and this script imports nothing of
npgpt: to port layernorm to another language, translate it. It reads FILE (ln.bin beside this script
by default; layernorm.py describes the layout), computes out, mean, rstd, dx, dw and db again from
x, w, b and dout, and prints the largest difference of each. The exit status is 0 if all are within
1e-5, 1 if something differs, and 2 if there is no such file or it is damaged.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from numba import njit

EPS = 1e-5
TOLERANCE = 1e-5


# The index along B is i, because b is the bias. A plain 0.0 is a float64: the arrays are float32,
# the sums over a row are in double precision.


@njit
def layernorm_forward(x, w, b, out, mean, rstd):
    """x and out (B, T, C), w and b (C,), mean and rstd (B, T): the last three are filled."""
    B, T, C = x.shape
    for i in range(B):
        for t in range(T):
            m = 0.0
            for c in range(C):
                m += x[i, t, c]
            m /= C
            var = 0.0
            for c in range(C):
                var += (x[i, t, c] - m) ** 2
            var /= C
            r = 1.0 / np.sqrt(var + EPS)
            for c in range(C):
                out[i, t, c] = (x[i, t, c] - m) * r * w[c] + b[c]
            mean[i, t] = m
            rstd[i, t] = r


@njit
def layernorm_backward(dout, x, w, mean, rstd, dx, dw, db):
    """dx (B, T, C) is filled; dw and db (C,) are added to, so they start at zero."""
    B, T, C = x.shape
    for i in range(B):
        for t in range(T):
            # A first run over the row for its two means, a second one for the gradients.
            dxhat_mean = 0.0
            dxhat_xhat_mean = 0.0
            for c in range(C):
                xhat = (x[i, t, c] - mean[i, t]) * rstd[i, t]
                dxhat = dout[i, t, c] * w[c]
                dxhat_mean += dxhat
                dxhat_xhat_mean += dxhat * xhat
            dxhat_mean /= C
            dxhat_xhat_mean /= C
            for c in range(C):
                xhat = (x[i, t, c] - mean[i, t]) * rstd[i, t]
                dxhat = dout[i, t, c] * w[c]
                dx[i, t, c] = (dxhat - dxhat_mean - xhat * dxhat_xhat_mean) * rstd[i, t]
                dw[c] += dout[i, t, c] * xhat
                db[c] += dout[i, t, c]


def layout(B, T, C):
    """The arrays in the order of the file: name -> shape."""
    return {
        "x": (B, T, C),
        "w": (C,),
        "b": (C,),
        "out": (B, T, C),
        "mean": (B, T),
        "rstd": (B, T),
        "dout": (B, T, C),
        "dx": (B, T, C),
        "dw": (C,),
        "db": (C,),
    }


class ReferenceFileError(Exception):
    """A reference file that is not there or is not what its first numbers call for."""


def read_reference(path):
    """Read the reference file -> its arrays by name."""
    try:
        size = os.stat(path).st_size
        if size < 12:
            raise ReferenceFileError(f"damaged: {size} bytes, B, T and C alone take 12")
        with open(path, "rb") as file:
            B, T, C = np.frombuffer(file.read(12), "<i4").tolist()
            if min(B, T, C) < 1:
                raise ReferenceFileError(f"damaged: B, T, C must be positive, not {B}, {T}, {C}")
            expected = 12 + 4 * (4 * B * T * C + 4 * C + 2 * B * T)
            if size != expected:
                raise ReferenceFileError(
                    f"damaged: {size} bytes, B, T, C = {B}, {T}, {C} take {expected}"
                )
            data = file.read(expected - 12)
    except OSError as error:
        raise ReferenceFileError(error.strerror or str(error)) from error
    values = np.frombuffer(data, "<f4").astype(np.float32)  # native byte order, as Numba needs it
    arrays = {}
    for name, shape in layout(B, T, C).items():
        count = int(np.prod(shape))
        arrays[name], values = values[:count].reshape(shape), values[count:]
    return arrays


def compute(reference):
    """x, w, b and dout of the reference -> the other six arrays by name."""
    x, w, b, dout = (reference[name] for name in ("x", "w", "b", "dout"))
    B, T, C = x.shape
    out, dx = np.empty((2, B, T, C), np.float32)  # each (B, T, C)
    mean, rstd = np.empty((2, B, T), np.float32)  # each (B, T)
    dw, db = np.zeros((2, C), np.float32)  # each (C,)
    layernorm_forward(x, w, b, out, mean, rstd)
    layernorm_backward(dout, x, w, mean, rstd, dx, dw, db)
    return {"out": out, "mean": mean, "rstd": rstd, "dx": dx, "dw": dw, "db": db}


def main():
    parser = argparse.ArgumentParser(
        description="Compute layernorm again and compare it with a reference file."
    )
    default = Path(__file__).with_name("ln.bin")
    parser.add_argument("file", nargs="?", default=default, help="default: ln.bin beside this file")
    path = parser.parse_args().file
    try:
        reference = read_reference(path)
    except ReferenceFileError as error:
        writer = Path(sys.argv[0]).with_name("layernorm.py")
        print(f"error: {path}: {error} (write it with: python {writer} {path})", file=sys.stderr)
        return 2
    ok = True
    for name, values in compute(reference).items():
        with np.errstate(invalid="ignore"):  # inf - inf in a damaged file is NOT OK, as nan is
            difference = np.abs(values - reference[name]).max()
        ok &= bool(difference <= TOLERANCE)
        print(f"{name:<5} {difference:9.1e}  {'OK' if difference <= TOLERANCE else 'NOT OK'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

"""Draw picture.png, GELU beside what it is near to, and exp.png, the error of the kernel's exp.

python doc/gelu/picture.py
"""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.exponential import exp
from npgpt.layers import gelu_backward, gelu_forward
from npgpt.training.curves import COLOURS, LINES

HERE = Path(__file__).parent


@jit
def exponentials(x, out):
    for i in range(x.size):
        out[i] = exp(x[i])


def erf_form(x):
    """x Phi(x) and its derivative."""
    cumulative = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * cumulative, cumulative + x * density


def line(axes, i, x, y, label):
    axes.plot(x, y, LINES[i], color=COLOURS[i], linewidth=1.8, label=label)


def finish(axes, **labels):
    axes.set(**labels)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def functions():
    x = np.linspace(-4, 4, 801)
    out, cache = gelu_forward(x)
    slope = gelu_backward(np.ones_like(x), cache)
    exact, exact_slope = erf_form(x)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    line(left, 0, x, out, "GELU")
    line(left, 1, x, slope, "its derivative")
    line(left, 3, x, np.maximum(x, 0), "ReLU")
    left.legend(frameon=False)
    finish(left, xlabel="x", ylim=(-0.4, 2.6))
    line(right, 0, x, 1e4 * (out - exact), "of the functions")
    line(right, 1, x, 1e4 * (slope - exact_slope), "of the derivatives")
    right.legend(frameon=False, loc="lower center")
    finish(right, xlabel="x", ylabel="tanh form - erf form, in 1e-4", ylim=(-13, 10))
    figure.savefig(HERE / "picture.png", dpi=100, pil_kwargs={"optimize": True})


def error_of_exp():
    x = np.linspace(-87, 88, 175 * 20_000, endpoint=False).astype(np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    error = np.abs(out / np.exp(x.astype(np.float64)) - 1).reshape(-1, 5_000)  # a quarter each
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    at = -87 + (np.arange(len(error)) + 0.5) / 4
    line(axes, 0, at, 1e7 * error.max(1), "largest in a quarter")
    line(axes, 1, at, 1e7 * error.mean(1), "mean")
    axes.legend(frameon=False)
    finish(axes, xlabel="x", ylabel="relative error, in 1e-7", ylim=(0, 3.5))
    figure.savefig(HERE / "exp.png", dpi=100, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    functions()
    error_of_exp()

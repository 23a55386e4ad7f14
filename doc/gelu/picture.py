"""Draw graph.svg, the layer's steps and gradients, example.svg, six numbers and their gradients,
curve.svg, GELU and its derivative, forms.svg, the difference of its two forms, and exp.svg, the
error of the kernel's exp.

    python doc/gelu/picture.py

Also writes into slope.html the samples by which that page checks its formulas.
"""

import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    arrow,
    box,
    canvas,
    chart,
    note,
    plain,
    save,
    stack,
    write_samples,
)

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.numerics.exponential import exp
from npgpt.layers import gelu_backward, gelu_forward
from npgpt.layers.gelu import CUBIC, SCALE

HERE = Path(__file__).parent


@jit
def exponentials(x, out):
    for i in range(x.size):
        out[i] = exp(x[i])


def graph():
    figure, axes = canvas(5.2, 4.6)
    note(axes, 0.1, 0.2, "forward: each array is (B, T, 4C)", 12, ha="left")
    box(axes, 0.5, 1.0, "x", BLUE, 0.7)
    box(axes, 1.95, 1.0, "u = s * (x +\na * x**3)", GREY, 1.3, 0.55, 9.5)
    box(axes, 3.55, 1.0, "h =\n(1 + tanh(u)) / 2", GREY, 1.35, 0.55, 9.5)
    box(axes, 4.75, 1.9, "out\n= x * h", BLUE, 0.75, 0.55, 10)
    arrow(axes, (0.87, 1.0), (1.28, 1.0))
    arrow(axes, (2.62, 1.0), (2.86, 1.0))
    arrow(axes, (4.25, 1.1), (4.65, 1.6))
    axes.plot([0.5, 0.5], [1.25, 1.9], color=BLUE, linewidth=1.6)
    arrow(axes, (0.5, 1.9), (4.35, 1.9), "the factor x", BLUE)

    note(axes, 0.1, 2.6, "backward", 12, ha="left")
    box(axes, 0.5, 3.3, "dx", BLUE, 0.7)
    box(axes, 2.0, 3.3, "du", GREY, 0.7)
    box(axes, 3.6, 3.3, "dh", GREY, 0.7)
    box(axes, 4.75, 4.2, "dout", BLUE, 0.75)
    arrow(axes, (4.65, 3.93), (3.97, 3.38), "* x", ORANGE)
    arrow(axes, (3.23, 3.3), (2.37, 3.3), colour=ORANGE)
    arrow(axes, (1.63, 3.3), (0.87, 3.3), colour=ORANGE)
    note(axes, 2.8, 2.92, "* (1 - tanh(u)**2) / 2", 9, family="monospace")
    note(axes, 0.95, 3.68, "* s * (1 + 3 * a * x**2)", 9, family="monospace", ha="left")
    axes.plot([0.5, 4.37], [4.2, 4.2], color=BLUE, linewidth=1.6)
    arrow(axes, (0.5, 4.2), (0.5, 3.55), "* h", BLUE)
    save(figure, HERE / "graph.svg")


def example():
    x = np.array([-3, -1, -0.5, 0, 1, 3])
    dout = np.array([1.0, 1, 1, 1, -2, 1])
    out, cache = gelu_forward(x)
    h = (1 + np.tanh(SCALE * (x + CUBIC * x**3))) / 2
    slope = gelu_backward(np.ones(6), cache)
    rows = (
        ("x", x, BLUE),
        ("h", h, GREY),
        ("out = x * h", out, BLUE),
        None,
        ("h", h, BLUE),
        ("x * dh/dx", slope - h, ORANGE),
        ("their sum", slope, GREEN),
        ("dout", dout, GREY),
        ("dx", gelu_backward(dout, cache), BLUE),
    )
    figure, axes = canvas(5.2, 3.4)
    stack(axes, 1.3, 0.1, rows, 0.15, cell=(0.63, 0.32), form=".3f")
    save(figure, HERE / "example.svg")


def erf_form(x):
    """x Phi(x) and its derivative."""
    cumulative = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x])
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * cumulative, cumulative + x * density


def line(axes, x, y, colour, style, label):
    axes.plot(x, y, style, color=colour, linewidth=2, label=label)


def functions():
    x = np.linspace(-4, 4, 161)
    out, cache = gelu_forward(x)
    slope = gelu_backward(np.ones_like(x), cache)
    exact, exact_slope = erf_form(x)

    figure, axes = chart(3)
    line(axes, x, np.maximum(x, 0), GREY, ":", "ReLU")
    line(axes, x, out, BLUE, "-", "GELU")
    line(axes, x, slope, ORANGE, "--", "its derivative")
    axes.legend(frameon=False)
    plain(axes, xlabel="x", ylim=(-0.4, 2.6))
    save(figure, HERE / "curve.svg")

    figure, axes = chart(3)
    line(axes, x, 1e4 * (out - exact), BLUE, "-", "of the functions")
    line(axes, x, 1e4 * (slope - exact_slope), ORANGE, "--", "of the derivatives")
    axes.legend(frameon=False, loc="lower center")
    plain(axes, xlabel="x", ylabel="tanh form - erf form, in 1e-4", ylim=(-13, 10))
    save(figure, HERE / "forms.svg")


def error_of_exp():
    x = np.linspace(-87, 88, 175 * 20_000, endpoint=False).astype(np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    error = np.abs(out / np.exp(x.astype(np.float64)) - 1).reshape(-1, 10_000)  # each 0.5 of x
    figure, axes = chart(3.2)
    at = -87 + (np.arange(len(error)) + 0.5) / 2
    line(axes, at, 1e7 * error.max(1), BLUE, "-", "largest in each interval of length 0.5")
    line(axes, at, 1e7 * error.mean(1), ORANGE, "--", "mean in each such interval")
    axes.legend(frameon=False)
    plain(axes, xlabel="x", ylabel="relative error, in 1e-7", ylim=(0, 3.5))
    save(figure, HERE / "exp.svg")


def samples():
    """Numbers, and what the layer makes of them."""
    x = np.array([-6, -4, -3, -1.4185, -0.7525, -0.5, 0, 0.1, 1, 1.4185, 2, 3, 5])
    out, cache = gelu_forward(x)
    slope = gelu_backward(np.ones_like(x), cache)
    return [{"x": x[i], "out": out[i], "slope": slope[i]} for i in range(x.size)]


if __name__ == "__main__":
    graph()
    example()
    functions()
    error_of_exp()
    write_samples(HERE / "slope.html", samples())

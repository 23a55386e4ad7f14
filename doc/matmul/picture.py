"""Draw graph.svg, the layer's shapes and gradients, example.svg, its three products with their
numbers, and steps.svg, the speeds that a table of kernel.md has.

    python doc/matmul/picture.py
"""

import re
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREY, ORANGE, PINK, arrow, box, canvas, chart, grid, note, plain, save

from npgpt.layers import matmul_backward, matmul_forward

HERE = Path(__file__).parent
LIMIT = "tiles alone"


def graph():
    figure, axes = canvas(5.2, 4.45)
    note(axes, 0.1, 0.2, "forward", 12, ha="left")
    box(axes, 0.65, 0.8, "x\n(B, T, C)", BLUE, 1.05)
    box(axes, 2.6, 0.8, "x @ w.T + b", GREY, 1.4, dashed=True)
    box(axes, 4.5, 0.8, "out\n(B, T, OC)", BLUE, 1.15)
    box(axes, 2.1, 1.75, "w\n(OC, C)", PINK, 0.85)
    box(axes, 3.1, 1.75, "b\n(OC,)", PINK, 0.85)
    arrow(axes, (1.2, 0.8), (1.88, 0.8))
    arrow(axes, (3.32, 0.8), (3.9, 0.8))
    arrow(axes, (2.1, 1.48), (2.4, 1.07))
    arrow(axes, (3.1, 1.48), (2.8, 1.07))

    note(axes, 0.1, 2.45, "backward", 12, ha="left")
    box(axes, 4.5, 3.0, "dout\n(B, T, OC)", BLUE, 1.15)
    box(axes, 0.65, 3.0, "dx\n(B, T, C)", BLUE, 1.05)
    box(axes, 0.65, 4.05, "dw\n(OC, C)", PINK, 1.05)
    box(axes, 4.5, 4.05, "db\n(OC,)", PINK, 1.15)
    arrow(axes, (3.9, 3.0), (1.2, 3.0), "dout @ w", BLUE)
    arrow(axes, (3.9, 3.15), (1.2, 3.98), "dout.T @ x", PINK, 0.55)
    arrow(axes, (4.5, 3.27), (4.5, 3.78), colour=PINK)
    note(axes, 4.42, 3.57, "sum over B, T", 9, ha="right")
    save(figure, HERE / "graph.svg")


def product(axes, x, y, left, right, result, names, colours):
    """A product as a drawing: the left matrix beside the result, the right one above it."""
    cell = {"cell": (0.34, 0.28), "size": 9.5, "form": ".0f"}
    below, beside = y + 0.28 * len(right) + 0.1, x + 0.34 * left.shape[1] + 0.1
    grid(axes, x, below, left, names[0], colours[0], **cell)
    grid(axes, beside, y, right, names[1], colours[1], **cell)
    grid(axes, beside, below, result, "", colours[2], **cell)
    under = below + 0.28 * len(result) + 0.15
    note(axes, beside, under, names[2], 10, family="monospace", ha="left")


def example():
    x = np.array([[1.0, 2, 3, 0], [0, 1, -1, 2], [2, 0, 1, 1]])  # (N, C)
    w = np.array([[1.0, 0, -1, 2], [2, 1, 0, -1]])  # (OC, C)
    b, dout = np.array([1.0, -1]), np.array([[1.0, 2], [0, -1], [1, 1]])  # (OC,), (N, OC)
    out, cache = matmul_forward(x, w, b)
    dx, dw, db = matmul_backward(dout, cache)
    cell = {"cell": (0.34, 0.28), "size": 9.5, "form": ".0f"}
    figure, axes = canvas(5.2, 6.2)
    note(axes, 0.1, 0.2, "forward", 12, ha="left")
    product(axes, 0.15, 0.6, x, w.T, out - b, ("x", "w.T", "x @ w.T"), (BLUE, PINK, GREY))
    note(axes, 2.6, 2.24, "+", 14)
    grid(axes, 2.8, 2.1, [b], "b", PINK, **cell)
    note(axes, 3.8, 2.24, "=", 14)
    grid(axes, 4.1, 1.82, out, "out", BLUE, **cell)
    note(axes, 0.1, 3.25, "backward", 12, ha="left")
    product(axes, 0.15, 3.75, dout, w, dx, ("dout", "w", "dx = dout @ w"), (BLUE, PINK, BLUE))
    names = "dout.T", "x", "dw = dout.T @ x"
    product(axes, 2.6, 3.75, dout.T, x, dw, names, (BLUE, BLUE, PINK))
    grid(axes, 0.15, 5.8, [db], "db = dout.sum(0)", PINK, **cell)
    save(figure, HERE / "example.svg")


def steps():
    """The table's first two columns; the median of all runs is not drawn."""
    text = (HERE / "kernel.md").read_text(encoding="utf-8")
    table = text[text.index("| step | GFLOP/s") : text.index("(steps.svg)")]
    speeds = {
        name: float(speed) for name, speed in re.findall(r"^\| (.+?) \| ([\d.]+) \|", table, re.M)
    }
    limit = speeds.pop(LIMIT)
    figure, axes = chart(4.4)
    colours = [ORANGE if "BLAS" in name else BLUE for name in speeds]
    bars = axes.barh(list(speeds), speeds.values(), color=colours)
    axes.bar_label(bars, [f"{speed:.3g}" for speed in speeds.values()], padding=3, color=GREY)
    axes.axvline(limit, color=GREY, linestyle="--", linewidth=1.5)
    above = axes.get_xaxis_transform()
    axes.text(limit, 1.01, LIMIT, ha="center", color=GREY, transform=above)
    axes.invert_yaxis()
    plain(axes, xlabel="GFLOP/s on one core", xlim=(0, 1.1 * limit))
    axes.grid(visible=False, axis="y")
    save(figure, HERE / "steps.svg")


if __name__ == "__main__":
    graph()
    example()
    steps()

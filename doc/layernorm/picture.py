"""Draw graph.svg, the layer's shapes and gradients, and example.svg, one row with its numbers,
and three_ways.svg, the three terms of its dx.

    python doc/layernorm/picture.py

Also writes into three_ways.html the samples by which that page checks its formulas.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
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

from npgpt.layers import layernorm_backward, layernorm_forward

HERE = Path(__file__).parent


def graph():
    figure, axes = canvas(5.2, 5.75)
    note(axes, 0.1, 0.2, "forward", 12, ha="left")
    box(axes, 0.6, 1.15, "x\n(B, T, C)", BLUE, 0.95)
    box(axes, 2.0, 0.7, "mean\n(B, T, 1)", GREY, 0.95)
    box(axes, 2.0, 1.6, "rstd\n(B, T, 1)", GREY, 0.95)
    box(axes, 3.35, 1.15, "xhat\n(B, T, C)", BLUE, 0.95)
    box(axes, 4.6, 1.15, "out\n(B, T, C)", BLUE, 0.95)
    box(axes, 4.6, 2.1, "w, b\n(C,)", PINK, 0.95)
    arrow(axes, (1.1, 1.05), (1.5, 0.75))
    arrow(axes, (1.1, 1.25), (1.5, 1.55))
    arrow(axes, (2.0, 0.97), (2.0, 1.33))
    arrow(axes, (1.1, 1.15), (2.85, 1.15))
    arrow(axes, (2.5, 0.75), (2.88, 0.95))
    arrow(axes, (2.5, 1.55), (2.88, 1.35))
    arrow(axes, (3.85, 1.15), (4.1, 1.15))
    arrow(axes, (4.6, 1.83), (4.6, 1.42))

    note(axes, 0.1, 2.75, "backward", 12, ha="left")
    paths = (
        ("directly", "rstd * dxhat", BLUE),
        ("through the mean", "-rstd * mean(dxhat)", ORANGE),
        ("through the variance", "-rstd * xhat *\nmean(dxhat * xhat)", GREEN),
    )
    for i, (name, term, colour) in enumerate(paths):
        y = 3.2 + 0.82 * i
        box(axes, 1.97, y, f"{name}:\n{term}", colour, 1.65, 0.7, 9)
        arrow(axes, (3.0 + 0.05, 4.02 + 0.08 * (i - 1)), (2.82, y), colour=colour)
        arrow(axes, (1.12, y), (0.8, 4.02 + 0.16 * (i - 1)), colour=colour)
    box(axes, 0.42, 4.02, "dx\n(B, T, C)", BLUE, 0.74, 0.55, 9.5)
    box(axes, 3.45, 4.02, "dxhat\n(B, T, C)", BLUE, 0.78, 0.55, 9.5)
    box(axes, 4.75, 4.02, "dout\n(B, T, C)", BLUE, 0.78, 0.55, 9.5)
    arrow(axes, (4.35, 4.02), (3.87, 4.02))
    note(axes, 4.1, 3.85, "* w", 9, family="monospace")
    box(axes, 3.45, 5.05, "dw\n(C,)", PINK, 0.78, 0.5, 9.5)
    box(axes, 4.75, 5.05, "db\n(C,)", PINK, 0.78, 0.5, 9.5)
    arrow(axes, (4.6, 4.32), (3.7, 4.78), colour=PINK)
    arrow(axes, (4.75, 4.32), (4.75, 4.78), colour=PINK)
    note(axes, 3.95, 4.45, "* xhat", 9, family="monospace", ha="right")
    note(axes, 4.1, 5.5, "both are sums over B and T", 9)
    save(figure, HERE / "graph.svg")


def example():
    """Draw the row with all its numbers, and the terms of its dx as bars."""
    x, w, b = np.array([1.0, 9, 7, 7]), np.array([1.0, 1, 2, 0.5]), np.array([0.0, 0, 0, 1])
    dout = np.array([-2.0, 1, 0.5, 2])
    out, cache = layernorm_forward(x[None], w, b)
    dx, _, _ = layernorm_backward(dout[None], cache)
    mean, rstd = (float(v.squeeze()) for v in cache[2:])
    xhat, dxhat = (x - mean) * rstd, dout * w
    terms = (
        ("directly", rstd * dxhat, BLUE),
        ("through the mean", np.full(4, -rstd * dxhat.mean()), ORANGE),
        ("through the variance", -rstd * xhat * (dxhat * xhat).mean(), GREEN),
        ("dx, the sum of the three", dx[0], GREY),
    )
    rows = (
        ("x", x, BLUE),
        ("xhat = (x - mean) * rstd", xhat, BLUE),
        ("w", w, PINK),
        ("b", b, PINK),
        ("out = xhat * w + b", out[0], BLUE),
        None,
        ("dout", dout, BLUE),
        ("dxhat = dout * w", dxhat, BLUE),
        *terms,
    )
    figure, axes = canvas(5.2, 4.5)
    stack(axes, 2.5, 0.1, rows, 0.3, cell=(0.64, 0.32), form=".2f")
    note(axes, 3.78, 2.05, f"mean = {mean:.2f}, rstd = {rstd:.3f}", 10, family="monospace")
    save(figure, HERE / "example.svg")

    figure, axes = chart(3)
    for k, (name, values, colour) in enumerate(terms):
        axes.bar(np.arange(4) + 0.2 * (k - 1.5), values, 0.18, color=colour, label=name)
    axes.axhline(0, color=GREY)
    axes.legend(frameon=False)
    plain(axes, ylim=(-0.8, 0.9))
    axes.set_xticks(range(4), [f"x[{i}]" for i in range(4)])
    axes.grid(visible=False, axis="x")
    save(figure, HERE / "three_ways.svg")


def samples():
    """Rows and gradients of xhat, and what the layer makes of them."""
    rng = np.random.default_rng(0)
    rows = [[1, 9, 7, 7], [2, 2, 2, 2], [-6, 6, 0, 1], *np.round(rng.normal(0, 4, (5, 4)), 2)]
    found = []
    for x in np.array(rows, np.float64):
        g = np.round(rng.standard_normal(4), 2)
        xhat, (_, _, mean, rstd) = layernorm_forward(x[None], np.ones(4), np.zeros(4))
        dx, _, _ = layernorm_backward(g[None], (x[None], np.ones(4), mean, rstd))
        values = {"x": x, "g": g, "mean": mean[0, 0], "rstd": rstd[0, 0], "xhat": xhat[0]}
        found.append({**values, "dx": dx[0]})
    return found


if __name__ == "__main__":
    graph()
    example()
    write_samples(HERE / "three_ways.html", samples())

"""Draw step.svg, valley.svg and adamw.svg.

python doc/adamw/picture.py

step.svg: what a step reads and writes, and three steps with their numbers, by npgpt.layers.
valley.svg: three ways down a valley. adamw.svg: the correction of the bias, and two kinds of
weight decay.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, PINK, arrow, box, canvas, grid, note, plain, save

from npgpt import layers

HERE = Path(__file__).parent
GRADIENTS = (2.0, 2.0, -4.0)  # of step.svg's three steps, and 100 times that of the other parameter
STEPS, LR, DECAY = 1000, 2e-3, 0.2  # of adamw.svg
START, STEEPNESS, VALLEY_LR, VALLEY_STEPS = (-1.9, 1.1), 20.0, 0.08, 60  # as in valley.html


def three_steps(factor):
    """-> for each step g, m, v, mhat, vhat and the step in multiples of lr, as a row."""
    p, m, v, rows = np.zeros(1), np.zeros(1), np.zeros(1), []
    for t, g in enumerate(GRADIENTS, 1):
        before = p[0]
        layers.adamw_update(p, np.array([factor * g]), m, v, t, 0.01, 0.9, 0.99, 1e-8, 0.0)
        rows.append((factor * g, m[0], v[0], m[0] / (1 - 0.9**t), v[0] / (1 - 0.99**t)))
        rows[-1] += ((before - p[0]) / 0.01,)
    return rows


def step(path):
    """One step as a graph, and below it three steps of two parameters."""
    figure, axes = canvas(5.3, 6.3)
    size = {"width": 1.05, "height": 0.5, "size": 10.5}
    for x, y, text, colour in (
        (2.65, 0.35, "g (N,)", ORANGE),
        (0.75, 1.3, "m (N,)", BLUE),
        (4.55, 1.3, "v (N,)", GREEN),
        (1.5, 2.4, "m\u0302", BLUE),
        (3.8, 2.4, "v\u0302", GREEN),
        (2.65, 3.45, "p (N,)", PINK),
    ):
        box(axes, x, y, text, colour, **size)
    arrow(axes, (2.12, 0.45), (1.15, 1.03), colour=BLUE)
    arrow(axes, (3.18, 0.45), (4.15, 1.03), colour=GREEN)
    arrow(axes, (0.95, 1.56), (1.3, 2.13), colour=BLUE)
    arrow(axes, (4.35, 1.56), (4.0, 2.13), colour=GREEN)
    arrow(axes, (1.75, 2.66), (2.4, 3.18), colour=BLUE)
    arrow(axes, (3.55, 2.66), (2.9, 3.18), colour=GREEN)
    note(axes, 2.65, 0.95, "running means\nof g and of g\u00b2", 9.5)
    note(axes, 2.65, 1.85, "corrected: they\nbegan at 0", 9.5)
    note(axes, 2.65, 2.78, "m\u0302 / (\u221av\u0302 + eps)", 9.5)
    note(axes, 4.3, 3.45, "\u2212 lr of it, and\n\u2212 lr\u00b7decay\u00b7p", 9.5)
    note(axes, 1.0, 3.45, "m and v are kept\nfor the next step", 9.5)
    names = ["g", "m", "v", "m\u0302", "v\u0302", "step/lr"]
    for y, factor, colour, form in ((4.35, 1, BLUE, ".2f"), (5.5, 100, GREEN, ".0f")):
        columns = np.round(three_steps(factor), 2).T + 0.0  # (6, t); + 0.0: no -0
        for j, (name, values) in enumerate(zip(names, columns, strict=True)):
            grid(
                axes, 0.75 + 0.75 * j, y, values[:, None], name, colour, cell=(0.72, 0.25),
                size=9.5, form=".2f" if name == "step/lr" else form,
                labels=() if j else ("t=1", "t=2", "t=3"),
            )  # fmt: skip
    save(figure, path)


def descend(way):
    """The points of one way down L = (x^2 + STEEPNESS y^2) / 2, with the start -> (t, 2)."""
    p, m, v = np.array(START), np.zeros(2), np.zeros(2)
    points = [p.copy()]
    for t in range(1, VALLEY_STEPS + 1):
        g, adam = p * (1.0, STEEPNESS), p.copy()
        layers.adamw_update(adam, g, m, v, t, VALLEY_LR, 0.9, 0.999, 1e-8, 0.0)
        p = {"descent": p - VALLEY_LR * g, "first mean": p - VALLEY_LR * m, "AdamW": adam}[way]
        points.append(p.copy())
    return np.array(points)


def valley(path):
    figure = Figure(figsize=(5.2, 6.6), layout="constrained")
    ways = (
        ("descent", "gradient descent"),
        ("first mean", "the first mean (momentum)"),
        ("AdamW", "AdamW"),
    )
    for axes, (way, title) in zip(figure.subplots(3, 1, sharex=True), ways, strict=True):
        for level in (0.1, 0.5, 1.3, 2.5, 5, 10, 20):
            width, height = (2 * (2 * level / c) ** 0.5 for c in (1, STEEPNESS))
            axes.add_patch(Ellipse((0, 0), width, height, fill=False, edgecolor=GREY, alpha=0.6))
        points = descend(way)
        axes.plot(*points.T, ".-", color=ORANGE, linewidth=1.2, markersize=5)
        axes.plot(*points[-1], "o", color=BLUE, markersize=8)
        axes.set(xlim=(-2.3, 2.3), ylim=(-1.35, 1.35))
        plain(axes, title=f"{title}, {VALLEY_STEPS} steps")
        axes.grid(False)
    save(figure, path)


def correction(axes):
    t = np.arange(1, 10_001)
    axes.plot(t, (1 - 0.9**t) / np.sqrt(1 - 0.999**t), "--", color=ORANGE, label="uncorrected")
    axes.plot(t, np.ones(t.size), color=BLUE, label="corrected")
    axes.set(xscale="log", ylim=(0, 7))
    axes.legend(frameon=False)
    plain(axes, title="a steady gradient", xlabel="step t", ylabel="size of the step / lr")


def decay(axes):
    sizes = np.array([[1.0], [100.0]])  # (2, 1)
    for decoupled, colour, style in ((True, BLUE, "-"), (False, ORANGE, "--")):
        noise = np.random.default_rng(1)
        p, m, v = np.ones((2, 2000)), np.zeros((2, 2000)), np.zeros((2, 2000))
        means = [p.mean(-1)]
        for t in range(1, STEPS + 1):
            g = sizes * noise.standard_normal(p.shape)  # (2, 2000)
            g += 0 if decoupled else DECAY * p
            numbers = (t, LR, 0.9, 0.999, 1e-8, DECAY if decoupled else 0.0)
            layers.adamw_update(p, g, m, v, *numbers)
            means.append(p.mean(-1))
        for i, size in enumerate((1, 100)):
            name = f"{'decoupled' if decoupled else 'L2'}, gradients of size {size}"
            axes.plot(
                range(0, STEPS + 1, 10), [row[i] for row in means[::10]], style, color=colour,
                label=name, marker="os"[i], markevery=(10 * i, 20), markersize=5,
            )  # fmt: skip
    axes.set(ylim=(0.4, 1.03))
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    title = "gradients of noise alone, and a pull to 0"
    plain(axes, title=title, xlabel="step t", ylabel="mean weight")


def corrections(path):
    figure = Figure(figsize=(5.2, 6), layout="constrained")
    for axes, draw in zip(figure.subplots(2, 1), (correction, decay), strict=True):
        draw(axes)
    save(figure, path)


if __name__ == "__main__":
    step(HERE / "step.svg")
    valley(HERE / "valley.svg")
    corrections(HERE / "adamw.svg")

"""Draw graph.svg, example.svg and crossentropy.svg.

python doc/crossentropy/picture.py

graph.svg: the shapes of the layer and the graph of its backward pass. example.svg: two positions
with their numbers, by npgpt.layers. crossentropy.svg: the probabilities of a position, and the
gradient of its logits.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, PINK, arrow, box, canvas, grid, note, plain, save
from graph import edge, legend

from npgpt import layers

HERE = Path(__file__).parent
# Two positions, C = 2, V = 3.
X = np.array([[[1.0, 2.0], [2.0, 0.0]]])  # (B, T, C)
WTE = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])  # (V, C)
TARGETS = np.array([[0, 1]])  # (B, T)

LOGITS = np.array([1.0, 2.2, -0.5, 1.6, 0.3, -1.0, 0.8])  # (V,), of crossentropy.svg
TARGET = 3


def graph(path):
    """From x and wte down to the loss, and the gradients back up."""
    figure, axes = canvas(5.2, 5.3)
    size = {"width": 1.6, "height": 0.58, "size": 10.5}
    for x, y, text, colour in (
        (1.2, 0.45, "x\n(B, T, C)", BLUE),
        (4.0, 0.45, "wte\n(V, C)", BLUE),
        (2.6, 1.85, "logits\n(B*T, V)", GREEN),
        (2.6, 3.3, "probs\n(B*T, V)", GREEN),
        (0.9, 4.0, "targets\n(B, T)", GREY),
        (2.6, 4.85, "loss\na scalar", PINK),
    ):
        box(axes, x, y, text, colour, **size)
    edge(axes, (1.5, 0.76), (2.2, 1.54), "dx")
    edge(axes, (3.7, 0.76), (3.0, 1.54), "dwte")
    arrow(axes, (2.6, 2.16), (2.6, 2.99), colour=BLUE)
    arrow(axes, (2.6, 3.61), (2.6, 4.54), colour=BLUE)
    arrow(axes, (1.25, 4.31), (1.78, 4.65), colour=BLUE)
    arrow(axes, (3.42, 4.85), (3.42, 1.85), colour=ORANGE, bend=0.25, line="--")
    note(axes, 4.3, 3.0, "dlogits", 10.5, family="monospace")
    note(axes, 4.45, 3.45, "(probs \u2212 onehot)\ntimes dloss / n", 9.5)
    note(axes, 0.08, 1.2, "x wte\u1d40", ha="left")
    note(axes, 0.08, 2.55, "softmax of each row", ha="left")
    note(axes, 2.75, 4.08, "\u2212log, mean", 9.5, ha="left")
    legend(axes, 3.8, 4.72)
    save(figure, path)


def example(path):
    """Two positions forward and backward, each array with its numbers."""
    loss, cache = layers.crossentropy_forward(X, WTE, TARGETS)
    dx, dwte = (np.round(d, 2) + 0.0 for d in layers.crossentropy_backward(1.0, cache))
    logits, probs = X[0] @ WTE.T, cache[2]  # each (T, V)
    dlogits = (probs - np.eye(3)[TARGETS[0]]) / 2  # (T, V)
    losses = -np.log(probs[[0, 1], TARGETS[0]])  # (T,)
    np.testing.assert_allclose(losses.mean(), loss)

    figure, axes = canvas(5.4, 4.75)
    small, wide = (0.34, 0.3), (0.48, 0.3)
    targets = [(0, 0), (1, 1)]
    grid(axes, 0.1, 0.4, X[0], "x", BLUE, cell=small, size=10, form=".0f")
    grid(axes, 1.2, 0.4, WTE, "wte", BLUE, cell=small, size=10, form=".0f")
    grid(axes, 2.3, 0.4, logits, "logits", GREEN, targets, cell=small, size=10, form=".0f")
    grid(axes, 3.75, 0.4, probs, "probs", GREEN, targets, cell=wide, size=10, form=".2f")
    grid(axes, 0.1, 1.8, losses[:, None], "\u2212log p", PINK, cell=wide, size=10, form=".2f")
    note(axes, 1.2, 2.1, f"mean: loss = {loss:.2f}", ha="left")
    note(axes, 3.1, 2.1, "strong colour: the target", ha="left")
    axes.plot([0.1, 5.3], [2.75, 2.75], color=GREY, linewidth=1)
    note(axes, 0.1, 2.95, "backward, from dloss = 1", ha="left")
    grid(axes, 0.1, 3.6, dlogits, "dlogits", ORANGE, targets, cell=wide, size=10, form=".2f")
    grid(axes, 2.1, 3.6, dx[0], "dx", ORANGE, cell=wide, size=10, form=".2f")
    grid(axes, 3.75, 3.6, dwte, "dwte", ORANGE, cell=wide, size=10, form=".2f")
    save(figure, path)


def bars(path):
    """The probabilities, and below them the gradient: the same bars but for the target's."""
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()  # (V,)
    onehot = np.eye(len(p))[TARGET]  # (V,)
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    panels = ((p, "probs", (0, 0.5)), (p - onehot, "dlogits", (-0.85, 0.5)))
    for axes, (heights, name, limits) in zip(figure.subplots(2, 1), panels, strict=True):
        drawn = axes.bar(range(len(p)), heights, color=BLUE)
        drawn[TARGET].set(facecolor=ORANGE, hatch="//", edgecolor="white", label="the target")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.legend(frameon=False, loc="lower right" if limits[0] else "upper right")
        plain(axes, xlabel="token v" if limits[0] else "", ylabel=name, ylim=limits)
    save(figure, path)


if __name__ == "__main__":
    graph(HERE / "graph.svg")
    example(HERE / "example.svg")
    bars(HERE / "crossentropy.svg")

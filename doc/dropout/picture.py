"""Draw example.svg and places.svg.

python doc/dropout/picture.py

example.svg: dropout of two rows with their random numbers, by npgpt.layers, and the way back.
places.svg: where GPT-2 drops out.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, PINK, arrow, box, canvas, grid, note, save

from npgpt import layers
from npgpt.layers.dropout import Drop, philox

HERE = Path(__file__).parent
X = np.array([[4.0, 1, 8, 2], [6.0, 3, 5, 7]])  # (2, C)
DOUT = np.array([[1.0, 2, 3, 4], [5.0, 6, 7, 8]])
DROP = Drop(0.5, 3, 0)


def example(path):
    """x, the random numbers, out; dout and dx beside them."""
    figure, axes = canvas(5.3, 3.75)
    words = np.stack(philox((0, np.arange(2), DROP.site, 0), DROP.key), -1) / 2**32  # (2, C)
    out, cache = layers.dropout_forward(X, DROP)
    dx = layers.dropout_backward(DOUT, cache)
    dropped = [tuple(at) for at in np.argwhere(words < DROP.rate).tolist()]
    cell = {"cell": (0.55, 0.32), "size": 10.5}
    grid(axes, 0.15, 0.35, X, "x (2, 4)", BLUE, form=".0f", **cell)
    grid(axes, 0.15, 1.6, words, "random, of [0, 1)", GREY, dropped, form=".2f", **cell)
    grid(axes, 0.15, 2.85, out, "out", GREEN, dropped, form=".0f", **cell)
    grid(axes, 2.95, 2.85, DOUT, "dout", ORANGE, form=".0f", **cell)
    grid(axes, 2.95, 0.35, dx, "dx", PINK, dropped, form=".0f", **cell)
    arrow(axes, (1.25, 1.05), (1.25, 1.3), colour=GREEN)
    arrow(axes, (1.25, 2.3), (1.25, 2.55), colour=GREEN)
    arrow(axes, (4.05, 2.5), (4.05, 1.1), "below 0.5: 0\nelse times 2", colour=PINK)
    note(axes, 1.9, 2.42, "below 0.5: 0, else times 2", 9.5, ha="left")
    save(figure, path)


def places(path):
    """A block's two branches with the three places in it, and the embedding's before it."""
    figure, axes = canvas(5.3, 5.6)
    size = {"width": 1.5, "height": 0.42, "size": 10}
    rows = [
        (0.35, "wte + wpe", BLUE), (0.95, "dropout", ORANGE), (1.9, "ln1, qkv", BLUE),
        (2.5, "softmax", BLUE), (3.1, "dropout", ORANGE), (3.7, "att v, attproj", BLUE),
        (4.3, "dropout", ORANGE),
    ]  # fmt: skip
    for y, text, colour in rows[:2]:
        box(axes, 1.0, y, text, colour, **size)
    for y, text, colour in rows[2:]:
        box(axes, 2.9, y, text, colour, **size)
    arrow(axes, (1.0, 0.56), (1.0, 0.72))
    arrow(axes, (1.0, 1.16), (1.0, 5.4))
    arrow(axes, (1.0, 1.5), (2.9, 1.67), bend=-0.15)
    for (y, *_), (below, *_) in zip(rows[2:-1], rows[3:], strict=True):
        arrow(axes, (2.9, y + 0.21), (2.9, below - 0.23))
    arrow(axes, (2.15, 4.3), (1.05, 4.75), colour=GREEN, bend=-0.15)
    note(axes, 0.72, 4.75, "+", 13)
    note(axes, 1.15, 5.2, "x, the residual stream", 9.5, ha="left")
    note(axes, 3.8, 3.1, "whole weights: a\nquery does without\nsome of its past", 9, ha="left")
    note(axes, 3.8, 4.3, "of what attention\nadds; fcproj's\nbranch likewise", 9, ha="left")
    note(axes, 1.9, 0.95, "of the stream, once", 9, ha="left")
    save(figure, path)


if __name__ == "__main__":
    example(HERE / "example.svg")
    places(HERE / "places.svg")

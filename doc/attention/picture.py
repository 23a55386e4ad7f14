"""Draw head.svg, example.svg, blocks.svg and cache.svg.

python doc/attention/picture.py

head.svg: the shapes of the layer and the graph of its backward pass. example.svg: one head with
its numbers, by npgpt.layers. blocks.svg: what exists of att at a time, in the textbook and in the
kernel. cache.svg: the keys and values that three calls of attention_step find and write.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.patches import Polygon, Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, INK, ORANGE, arrow, box, canvas, grid, note, save, tint
from graph import edge, legend

from npgpt import layers

HERE = Path(__file__).parent
# One head, T = 3, hs = 4. The last channel of each value is 1, so that of y is the weights' sum.
Q = [[2, 0, 0, 0], [0, 2, 0, 2], [2, 2, 0, 0]]
K = [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]]
V = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]]
DY = [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]]

T, ROWS, NOW = 1024, 96, 6  # of blocks.svg; NOW: the block that is being worked on


def head(path):
    """From qkv down to out, and the gradients back up."""
    figure, axes = canvas(5.2, 6.5)
    middle, left, right = 2.6, 0.95, 4.25
    size = {"width": 1.45, "height": 0.58, "size": 10.5}
    for x, y, text, colour in (
        (middle, 0.4, "qkv\n(B, T, 3C)", GREY),
        (left, 1.75, "q\n(T, hs)", BLUE),
        (middle, 1.75, "k\n(T, hs)", BLUE),
        (right, 1.75, "v\n(T, hs)", BLUE),
        (1.75, 3.15, "preatt\n(T, T)", GREEN),
        (1.75, 4.5, "att\n(T, T)", GREEN),
        (3.1, 5.75, "y\n(T, hs)", BLUE),
    ):
        box(axes, x, y, text, colour, **size)
    edge(axes, (2.2, 0.71), (1.15, 1.44), "dq")
    edge(axes, (2.6, 0.71), (2.6, 1.44), "dk")
    edge(axes, (3.0, 0.71), (4.05, 1.44), "dv")
    edge(axes, (1.05, 2.06), (1.5, 2.84), "dq", at=0.45)
    edge(axes, (2.45, 2.06), (2.0, 2.84), "dk", at=0.45)
    edge(axes, (1.75, 3.46), (1.75, 4.19), "dpreatt")
    edge(axes, (1.95, 4.81), (2.75, 5.44), "datt")
    edge(axes, (4.15, 2.06), (3.45, 5.44), "dv", at=0.45)
    edge(axes, (3.1, 6.06), (3.1, 6.48), "dy", at=0.4)
    words = {"size": 10, "ha": "left"}
    note(axes, 0.08, 0.98, "split into heads", **words)
    note(axes, 0.08, 2.45, "q k\u1d40 / \u221ahs", **words)
    note(axes, 0.08, 3.82, "mask,\nsoftmax", **words)
    note(axes, 0.08, 5.2, "att v: a mean\nof the values", **words)
    note(axes, 3.55, 6.3, "side by side: out", **words)
    legend(axes, 3.75, 0.25)
    save(figure, path)


def example(path):
    """One head forward and backward, each array with its numbers."""
    qkv = np.concatenate([Q, K, V], axis=-1)[None].astype(float)  # (1, T, 3C), NH = 1
    out, cache = layers.attention_forward(qkv, 1)
    dout = np.array(DY, float)[None]  # (1, T, C)
    dqkv = layers.attention_backward(dout, cache)
    dq, dk, dv = np.split(dqkv[0], 3, axis=-1)  # each (T, hs)
    att = cache[1][0, 0]  # (T, T)
    datt = dout[0] @ np.transpose(V)  # (T, T)
    preatt = np.array(Q) @ np.transpose(K) / 2  # (T, T)
    dpreatt = att * (datt - (att * datt).sum(-1, keepdims=True))  # (T, T)
    np.testing.assert_allclose(dpreatt @ K / 2, dq)
    out, dpreatt, dq, dk, dv = (np.round(x, 2) + 0.0 for x in (out, dpreatt, dq, dk, dv))  # no -0

    figure, axes = canvas(5.6, 6.6)
    small, wide = (0.3, 0.3), (0.44, 0.3)
    future = [(t, u) for t in range(3) for u in range(t + 1, 3)]
    scores = [["\u2212\u221e" if (t, u) in future else f"{preatt[t, u]:.0f}" for u in range(3)]
              for t in range(3)]  # fmt: skip

    def row(y, *columns):
        for x, title, rows, colour, cell, form in columns:
            grid(axes, x, y, rows, title, colour, cell=cell, size=9.5, form=form)

    row(0.35, (0.1, "q", Q, BLUE, small, "d"), (2.1, "k", K, BLUE, small, "d"),
        (4.1, "v", V, BLUE, small, "d"))  # fmt: skip
    row(1.75, (0.1, "preatt", scores, GREEN, wide, None), (1.85, "att", att, GREEN, wide, ".2f"),
        (3.65, "y", out[0], BLUE, wide, ".2f"))  # fmt: skip
    axes.plot([0.1, 5.5], [3.02, 3.02], color=GREY, linewidth=1)
    note(axes, 0.1, 3.2, "backward, from a chosen dy", ha="left")
    row(3.85, (0.1, "dy", DY, ORANGE, small, "d"), (1.85, "datt", datt, ORANGE, wide, ".0f"),
        (3.65, "dpreatt", dpreatt, ORANGE, wide, ".2f"))  # fmt: skip
    row(5.4, (0.1, "dq", dq, ORANGE, wide, ".2f"), (1.93, "dk", dk, ORANGE, wide, ".2f"),
        (3.76, "dv", dv, ORANGE, wide, ".2f"))  # fmt: skip
    save(figure, path)


def textbook(axes, x0, y0, side):
    """All of att: one square."""
    axes.add_patch(Rectangle((x0, y0), side, side, facecolor=BLUE, alpha=0.45, linewidth=0))
    corners = [(x0, y0), (x0 + side, y0), (x0 + side, y0 + side)]
    axes.add_patch(Polygon(corners, facecolor=GREY, edgecolor="white", hatch="//", linewidth=0))
    note(axes, x0 + 0.3 * side, y0 + 0.72 * side, "kept", 10, INK, bbox=card(BLUE))
    note(axes, x0 + 0.68 * side, y0 + 0.3 * side, "the future:\nmade, then 0", 9.5, INK,
         bbox=card(GREY))  # fmt: skip
    note(axes, x0, y0 - 0.14, "textbook: (T, T) per head", 10, ha="left")


def kernel(axes, x0, y0, side):
    """Blocks of rows up to the diagonal, and a column of what is kept."""
    scale = side / T
    for block, t0 in enumerate(range(0, T, ROWS)):
        t1 = min(t0 + ROWS, T)
        now = block == NOW
        style = {"facecolor": ORANGE if now else "none", "linestyle": "-" if now else ":"}
        corner = (x0, y0 + scale * t0)
        size = scale * t1, scale * (t1 - t0)
        axes.add_patch(Rectangle(corner, *size, edgecolor=ORANGE if now else GREY, **style))
    for row, text in ((4.5, "gone again"), (NOW + 0.5, "these rows, now"), (8.5, "not yet made")):
        note(axes, x0 + 0.24 * side, y0 + row * ROWS * scale, text, 9.5,
             INK if row == NOW + 0.5 else GREY)  # fmt: skip
    done, x = (NOW + 1) * ROWS * scale, x0 + 1.05 * side
    axes.add_patch(Rectangle((x, y0), 0.1, done, facecolor=GREEN, edgecolor=GREY))
    axes.add_patch(Rectangle((x, y0), 0.1, side, facecolor="none", edgecolor=GREY))
    note(axes, x0 + 0.66 * side, y0 + 0.14 * side, "kept: two\nnumbers per row", 9.5)
    note(axes, x0, y0 - 0.14, "kernel: a block of rows", 10, ha="left")


def card(colour):
    return {"boxstyle": "round,pad=0.25", "facecolor": tint(colour), "edgecolor": colour}


def blocks(path):
    figure, axes = canvas(5.6, 3.05)
    side = 2.3
    for x0, draw in ((0.12, textbook), (2.95, kernel)):
        draw(axes, x0, 0.35, side)
        note(axes, x0 + side / 2, 0.35 + side + 0.2, "position u that is looked at", 9.5)
        axes.plot([x0, x0 + side], [0.35, 0.35 + side], color=GREY, linewidth=1)
    save(figure, path)


def cache(path):
    """Three calls, one below the other: the new queries, and the cache's eight positions."""
    figure, axes = canvas(5.4, 3.35)
    cell = 0.36
    for row, (pos, N) in enumerate(((0, 3), (3, 1), (4, 1))):
        y = 0.75 + 0.85 * row
        note(axes, 0.1, y - 0.2, f"pos = {pos}, N = {N}", 10, ha="left", family="monospace")
        queries = [[f"q{t}" for t in range(pos, pos + N)]]
        grid(axes, 0.1, y, queries, "", BLUE, cell=(cell, cell), size=9.5)
        kept, new = [[f"{u}" for u in range(pos)]], [[f"{u}" for u in range(pos, pos + N)]]
        left = 2.1
        grid(axes, left, y, kept, "", GREEN, cell=(cell, cell), size=9.5)
        grid(axes, left + cell * pos, y, new, "", ORANGE, cell=(cell, cell), size=9.5)
        for u in range(pos + N, 8):
            corner = (left + cell * u, y)
            axes.add_patch(Rectangle(corner, cell, cell, fill=False, edgecolor=GREY, linestyle=":"))
        arrow(axes, (0.1 + cell * N + 0.08, y + cell / 2), (left - 0.08, y + cell / 2))
    note(axes, 0.1, 0.2, "new queries", ha="left")
    note(axes, 2.1, 0.2, "keys and values of all up to them", ha="left")
    for x, colour, text in ((0.1, GREEN, "kept from before"), (2.1, ORANGE, "written now")):
        grid(axes, x, 3.08, [[""]], "", colour, cell=(0.2, 0.2))
        note(axes, x + 0.3, 3.18, text, 9.5, ha="left")
    note(axes, 3.6, 3.18, "dotted: still empty", 9.5, ha="left")
    save(figure, path)


if __name__ == "__main__":
    head(HERE / "head.svg")
    example(HERE / "example.svg")
    blocks(HERE / "blocks.svg")
    cache(HERE / "cache.svg")

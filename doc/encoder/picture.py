"""Draw graph.svg, the layer's shapes and gradients, example.svg, two short texts with all numbers,
and copies.svg: a look-up copies rows of the table, its gradient adds up over the copies.

    python doc/encoder/picture.py
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, PINK, SKY, arrow, box, canvas, grid, note, save

from npgpt.layers import encoder_backward, encoder_forward

HERE = Path(__file__).parent
TEXT = "sea sells"
TABLE = sorted(set(TEXT))
COLOURS = dict(zip(TABLE, (GREY, SKY, GREEN, PINK, ORANGE), strict=True))
LINES = dict(zip(TABLE, ("-", "--", "-", "-.", "--"), strict=True))


def graph():
    figure, axes = canvas(5.2, 4.3)
    note(axes, 0.1, 0.2, "forward", 12, ha="left")
    box(axes, 0.65, 0.75, "tokens\n(B, T)", GREY, 1.05)
    box(axes, 2.45, 0.75, "look up the\nrows of wte", GREY, 1.3, dashed=True)
    box(axes, 2.45, 1.65, "wte\n(V, C)", PINK, 1.3)
    box(axes, 4.5, 0.75, "out\n(B, T, C)", BLUE, 1.15)
    box(axes, 4.5, 1.65, "wpe[:T]\n(T, C)", PINK, 1.15)
    arrow(axes, (1.2, 0.75), (1.78, 0.75))
    arrow(axes, (2.45, 1.38), (2.45, 1.02))
    arrow(axes, (3.12, 0.75), (3.9, 0.75))
    arrow(axes, (4.5, 1.38), (4.5, 1.02))
    note(axes, 3.5, 0.55, "(B, T, C)", 9)
    note(axes, 4.42, 1.2, "+", 13, ha="right")

    note(axes, 0.1, 2.4, "backward", 12, ha="left")
    box(axes, 0.65, 2.95, "tokens\n(B, T)", GREY, 1.05)
    box(axes, 2.45, 2.95, "add up by\ntoken", GREY, 1.3, dashed=True)
    box(axes, 2.45, 3.9, "dwte\n(V, C)", PINK, 1.3)
    box(axes, 4.5, 2.95, "dout\n(B, T, C)", BLUE, 1.15)
    box(axes, 4.5, 3.9, "dwpe[:T]\n(T, C)", PINK, 1.15)
    arrow(axes, (1.2, 2.95), (1.78, 2.95))
    arrow(axes, (3.9, 2.95), (3.12, 2.95), colour=BLUE)
    arrow(axes, (2.45, 3.22), (2.45, 3.63), colour=PINK)
    arrow(axes, (4.5, 3.22), (4.5, 3.63), colour=PINK)
    note(axes, 3.5, 2.77, "dout", 9, family="monospace")
    note(axes, 4.42, 3.43, "dout.sum(0)", 9, family="monospace", ha="right")
    save(figure, HERE / "graph.svg")


def example():
    tokens = np.array([[2, 0, 2], [1, 2, 0]])  # (B, T)
    wte = np.array([[1.0, 2], [3, 4], [5, 6], [7, 8]])  # (V, C)
    wpe = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])  # (maxT, C)
    dout = np.array([[[1.0, 0], [2, 1], [-1, 2]], [[0, 3], [4, -1], [1, 1]]])  # (B, T, C)
    out, cache = encoder_forward(tokens, wte, wpe)
    dwte, dwpe = encoder_backward(dout, cache)
    places = [(i, j) for i in range(6) for j in range(2) if tokens.flat[i] == 2]
    row = {(2, 0), (2, 1)}
    figure, axes = canvas(5.2, 5.3)
    for y, d in ((0.75, ""), (3.3, "d")):
        note(axes, 0.1, y - 0.5, "backward" if d else "forward", 12, ha="left")
        by_token, by_time, by_place = (dwte, dwpe, dout) if d else (wte, wpe, out)
        cells = {"cell": (0.5, 0.3), "form": ".0f" if d else ".1f"}
        in_table = {**cells, "form": ".0f", "labels": range(4)}
        grid(axes, 0.35, y, by_token, f"{d}wte", GREEN, row, **in_table)
        grid(axes, 2.15, y, by_time, f"{d}wpe", PINK, **cells, labels=range(3))
        rows = by_place.reshape(6, 2)
        grid(axes, 3.95, y, rows, f"{d}out", BLUE, places, **cells, labels=tokens.ravel())
    note(axes, 1.72, 1.2, "+", 14)
    note(axes, 3.42, 1.2, "=", 14)
    note(axes, 0.1, 2.3, f"tokens = {tokens.tolist()}", 9.5, family="monospace", ha="left")
    note(axes, 0.85, 4.8, "the rows of dout\nadded up by token", 9.5)
    note(axes, 2.65, 4.5, "and by time,\nover both texts", 9.5)
    save(figure, HERE / "example.svg")


def draw_copies(axes, top, forward):
    note(axes, 0.1, top, "forward: copy" if forward else "backward: add up", 12, ha="left")
    places = [0.35 + 0.5625 * t for t in range(len(TEXT))]
    rows = [0.55 + 1.025 * i for i in range(len(TABLE))]
    for t, token in enumerate(TEXT):
        row, place = (rows[TABLE.index(token)], top + 0.92), (places[t], top + 1.75)
        start, end = (row, place) if forward else (place, row)
        arrow(axes, start, end, colour=COLOURS[token], line=LINES[token])
        character = token if token.strip() else "\N{OPEN BOX}"
        box(axes, places[t], top + 1.97, f"{character}\n[{t}]", COLOURS[token], 0.46, 0.42, 9)
    for x, token in zip(rows, TABLE, strict=True):
        count = TEXT.count(token)
        says = f"{count} cop{'ies' if count > 1 else 'y'}" if forward else f"sum of {count}"
        name = token if token.strip() else "space"
        text = f"{'wte' if forward else 'dwte'}[{name}]\n{says}"
        box(axes, x, top + 0.65, text, COLOURS[token], 0.97, 0.5, 8.5)
    note(axes, 2.6, top + 2.33, "out, by position" if forward else "dout, by position", 10)


def copies():
    figure, axes = canvas(5.2, 5.3)
    draw_copies(axes, 0.2, True)
    draw_copies(axes, 2.75, False)
    save(figure, HERE / "copies.svg")


if __name__ == "__main__":
    graph()
    example()
    copies()

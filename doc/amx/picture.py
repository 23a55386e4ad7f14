"""Draw tile.svg: what one multiplication of tiles does, and a small one with its numbers.

python doc/amx/picture.py
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, arrow, canvas, grid, note, save, tint

HERE = Path(__file__).parent
SIDE, ROW, COLUMN = 2.05, 5, 10  # inches of a tile's side; the row and the column that are shown
A = np.array([[1, 2, 3, 4], [0, 1, 0, -1]])  # (2, 4)
B = np.array([[5, 1], [6, 0], [7, 0], [8, 2]])  # (4, 2)


def tile(axes, x, y, colour, pairs):
    """16 rows of 16 cells; pairs are cells with a line in the middle."""
    axes.add_patch(Rectangle((x, y), SIDE, SIDE, facecolor=tint(colour, 0.12), edgecolor=colour))
    for k in range(1, 16):
        at = k * SIDE / 16
        axes.plot([x, x + SIDE], [y + at, y + at], color=colour, linewidth=0.5)
        axes.plot([x + at, x + at], [y, y + SIDE], color=colour, linewidth=0.8)
    for k in range(16 if pairs else 0):
        at = (k + 0.5) * SIDE / 16
        axes.plot([x + at, x + at], [y, y + SIDE], color=colour, linewidth=0.25)


def whole(axes):
    """a to the left of c and b above it, as one multiplies on paper."""
    left, right, top, bottom = 0.35, 3.0, 0.5, 3.0
    tile(axes, left, bottom, BLUE, pairs=True)
    tile(axes, right, top, GREEN, pairs=True)
    tile(axes, right, bottom, ORANGE, pairs=False)
    cell = SIDE / 16
    for x, y, width, height, colour in (
        (left, bottom + ROW * cell, SIDE, cell, BLUE),
        (right + COLUMN * cell, top, cell, SIDE, GREEN),
        (right + COLUMN * cell, bottom + ROW * cell, cell, cell, ORANGE),
    ):
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0, zorder=3))
    column = right + (COLUMN + 0.5) * cell
    row = bottom + (ROW + 0.5) * cell
    arrow(axes, (left + SIDE, row), (right + COLUMN * cell, row))
    arrow(axes, (column, top + SIDE), (column, bottom + ROW * cell))
    note(axes, left - 0.15, row, "i", 11)
    note(axes, column, top - 0.14, "j", 11)
    note(axes, left, bottom + SIDE + 0.2, "a: 16 rows of 32 bf16", ha="left")
    note(axes, right, bottom + SIDE + 0.2, "c: 16 \u00d7 16 float32", ha="left")
    note(axes, left, top + 0.2, "b: 16 rows of 16 pairs;", ha="left")
    note(axes, left, top + 0.5, "row p has k = 2p and 2p+1", ha="left")
    note(axes, left, top + 0.8, "of each of 16 columns", ha="left")
    note(axes, left, top + 1.45, "c[i, j] += the sum of", ha="left")
    note(axes, left, top + 1.75, "16 \u00d7 2 products", ha="left")


def small(axes, y):
    """2 x 4 by 4 x 2: b as in memory, b as its tile, and the sums."""
    tiled = B.reshape(2, 2, 2).transpose(0, 2, 1).reshape(2, 4)
    cell = (0.32, 0.3)
    grid(axes, 0.35, y, A, "a", BLUE, [(0, k) for k in range(4)], cell=cell, form="d")
    grid(axes, 2.0, y, B, "b", GREEN, [(k, 0) for k in range(4)], cell=cell, form="d")
    arrow(axes, (2.7, y + 0.3), (3.0, y + 0.3))
    marked = [(0, 0), (0, 1), (1, 0), (1, 1)]
    grid(axes, 3.05, y, tiled, "b in a tile", GREEN, marked, cell=cell, form="d")
    grid(axes, 4.6, y, A @ B, "c", ORANGE, [(0, 0)], cell=(0.36, 0.3), form="d")
    note(axes, 3.05, y + 0.95, "1\u00b75 + 2\u00b76 + 3\u00b77 + 4\u00b78 = 70", ha="left")


if __name__ == "__main__":
    figure, axes = canvas(5.4, 7.3)
    whole(axes)
    axes.plot([0.35, 5.1], [5.6, 5.6], color=GREY, linewidth=1)
    small(axes, 5.95)
    save(figure, HERE / "tile.svg")

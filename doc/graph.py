"""The graph of a layer for the tutorials' drawings: forward solid, gradients dashed beside it."""

import numpy as np
from drawing import BLUE, GREY, ORANGE, arrow, note

GAP = 0.08  # inches from the middle of an edge to each of its two arrows


def edge(axes, start, end, gradient="", at=0.5):
    """An arrow for the values, and beside it one back that carries this gradient."""
    way = np.subtract(end, start)
    side = GAP * np.array([way[1], -way[0]]) / np.hypot(*way)
    arrow(axes, tuple(start + side), tuple(end + side), colour=BLUE)
    arrow(axes, tuple(end - side), tuple(start - side), gradient, ORANGE, 1 - at, line="--")


def legend(axes, x, y, apart=0.28):
    """What the two kinds of arrows mean, one below the other, from the left at x."""
    arrow(axes, (x, y), (x + 0.45, y), colour=BLUE)
    note(axes, x + 0.55, y, "forward", colour=GREY, ha="left")
    arrow(axes, (x + 0.45, y + apart), (x, y + apart), colour=ORANGE, line="--")
    note(axes, x + 0.55, y + apart, "backward", colour=GREY, ha="left")

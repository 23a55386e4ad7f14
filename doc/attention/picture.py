"""Draw attention.png: what exists of att at a time, in the textbook and in the kernel.

python doc/attention/picture.py
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed

from npgpt.inside.figure import COLOURS

T, ROWS, NOW = 1024, 96, 6  # NOW: the block that is being worked on
BLUE, GREEN, ORANGE = COLOURS[0], COLOURS[2], COLOURS[4]


def textbook(axes):
    axes.add_patch(Rectangle((0, 0), T, T, facecolor=BLUE, alpha=0.35, edgecolor="none"))
    triangle = [(0, 0), (T, 0), (T, T)]
    axes.add_patch(Polygon(triangle, facecolor="white", alpha=0.5, hatch="//", linewidth=0))
    axes.plot([0, T], [0, T], color="black", linewidth=1)
    axes.text(0.27 * T, 0.72 * T, "att, kept for the\nbackward pass", ha="center", va="center")
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.text(0.7 * T, 0.3 * T, "the future:\nmade, then 0", ha="center", va="center", bbox=white)
    axes.set_title("textbook: (T, T) numbers a head", fontsize=10)


def kernel(axes):
    for block, t0 in enumerate(range(0, T, ROWS)):
        t1 = min(t0 + ROWS, T)
        style = {"facecolor": "none", "linestyle": ":", "linewidth": 0.8}
        if block == NOW:
            style = {"facecolor": ORANGE, "linewidth": 1.5}
        axes.add_patch(Rectangle((0, t0), t1, t1 - t0, edgecolor="black", **style))
    axes.plot([0, T], [0, T], color="black", linewidth=1)
    for row, text in ((5.5, "gone again"), (NOW + 0.5, "96 rows, now"), (7.5, "not yet made")):
        axes.text(0.27 * T, row * ROWS, text, ha="center", va="center")
    done = (NOW + 1) * ROWS
    bar, width = 1.06 * T, 0.035 * T
    axes.add_patch(Rectangle((bar, 0), width, done, facecolor=GREEN, edgecolor="black"))
    axes.add_patch(Rectangle((bar, 0), width, T, facecolor="none", edgecolor="black"))
    axes.annotate(
        "kept: one log\nof a sum a row", (1.05 * T, 0.13 * T), (0.66 * T, 0.13 * T),
        ha="center", va="center", arrowprops={"arrowstyle": "->"},
    )  # fmt: skip
    axes.set_title("kernel: a block of rows, and (T,) numbers", fontsize=10)


def main():
    figure = Figure(figsize=(8, 3.9), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 2), (textbook, kernel), strict=True):
        draw(axes)
        axes.set(xlim=(-10, 1.12 * T), ylim=(T + 10, -10), aspect="equal")
        axes.set(xticks=[0, T], yticks=[0, T], xlabel="position s that is looked at")
        axes.set_ylabel("position t that looks")
        axes.spines[:].set_visible(False)
    figure.savefig(Path(__file__).with_name("attention.png"), dpi=110)


if __name__ == "__main__":
    main()

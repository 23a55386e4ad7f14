"""Draw picture.png: a look-up copies rows of the table, its gradient adds rows up.

python doc/encoder/picture.py
"""

from pathlib import Path

from matplotlib.figure import Figure

from npgpt.inside.figure import COLOURS

TEXT = "sea sells"
TABLE = sorted(set(TEXT))
LINES = {" ": "-", "a": "--", "e": "-", "l": "-.", "s": "--"}
GREY = "#BBBBBB"


def name(token):
    return token if token.strip() else "space"


def box(axes, x, y, text, colour="black"):
    axes.text(
        x, y, text, ha="center", va="center", fontsize=11, family="monospace",
        bbox={"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": colour},
    )  # fmt: skip


def arrow(axes, start, end, token, colour):
    style = {"arrowstyle": "-|>", "color": colour, "linestyle": LINES[token], "linewidth": 1.5}
    axes.annotate("", end, start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})


def draw(axes, forward):
    colours = {token: COLOURS[i] for i, token in enumerate(TABLE)}
    step = (len(TEXT) - 1) / (len(TABLE) - 1)
    for t, token in enumerate(TEXT):
        position, row = (t, 0.32), (step * TABLE.index(token), 1.68)
        start, end = (row, position) if forward else (position, row)
        arrow(axes, start, end, token, colours[token])
        box(axes, t, 0, f"{'out' if forward else 'dout'}\n[{t}]")
        axes.text(t, -0.72, token if token.strip() else "␣", ha="center", fontsize=12)
    for i, token in enumerate(TABLE):
        table = "wte" if forward else "dwte"
        count = TEXT.count(token)
        count = f"\n{count} cop{'ies' if count > 1 else 'y'}" if forward else f"\nsum of {count}"
        box(axes, step * i, 2, f"{table}[{name(token)}]{count}", colours[token])
    axes.set(xlim=(-0.7, len(TEXT) - 0.3), ylim=(-0.95, 2.5))
    axes.set_title("forward: copy" if forward else "backward: add up", fontsize=12)
    axes.axis("off")


def main():
    figure = Figure(figsize=(8, 6.2), layout="constrained")
    for axes, forward in zip(figure.subplots(2), (True, False), strict=True):
        draw(axes, forward)
    figure.savefig(Path(__file__).with_name("picture.png"), dpi=90, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()

"""Draw stream.png, a block as a flow of data, and split.png, where a training step's time goes.

split.png takes the results of `python -m bench.step` on an Intel CPU with AMX, at T=64 and T=1024.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from npgpt import GPT2Config
from npgpt.inside.figure import COLOURS

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "bench" / "results" / "intel-amx"
FORWARD, BACKWARD = COLOURS[0], COLOURS[1]


def arrows(axes, points, width=1.6, gap=0.11):
    """The way through points forward, solid, and beside it the same way backward, dashed."""
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        dx, dy = (0, gap) if y0 == y1 else (gap if y1 > y0 else -gap, 0)
        style = {"arrowstyle": "-|>", "linewidth": width, "shrinkA": 0, "shrinkB": 0}
        for ends, colour, line, side in (
            (((x1, y1), (x0, y0)), FORWARD, "-", 1),
            (((x0, y0), (x1, y1)), BACKWARD, (0, (3, 2)), -1),
        ):
            head, tail = [(x + side * dx, y + side * dy) for x, y in ends]
            arrow = {**style, "color": colour, "linestyle": line}
            axes.annotate("", head, tail, arrowprops=arrow)


def stream(path):
    """Two branches above a stream that runs from left to right."""
    figure, axes = plt.subplots(figsize=(9.2, 2.9), layout="constrained")
    axes.set(xlim=(-1.1, 25.9), ylim=(-1.15, 3.3))
    axes.axis("off")
    high, half, begin = 2.2, 1.1, -1.0  # of the branches; of a box's width; of the stream
    for start, names, widths in (
        (0.0, ("ln1", "qkv", "attention", "attproj"), ("C", "3C", "C", "C")),
        (12.5, ("ln2", "fc", "gelu", "fcproj"), ("C", "4C", "4C", "C")),
    ):
        places = [start + 1.9 + 2.55 * i for i in range(4)]
        join = places[-1] + 1.55
        arrows(axes, [(start + 0.2, 0.25), (start + 0.2, high), (places[0] - half, high)])
        for here, there in zip(places, places[1:], strict=False):
            arrows(axes, [(here + half, high), (there - half, high)])
        arrows(axes, [(places[-1] + half, high), (join, high), (join, 0.35)])
        for place, name, width in zip(places, names, widths, strict=True):
            box = {"boxstyle": "round,pad=0.35", "facecolor": "#f2f2f2", "edgecolor": "#444444"}
            axes.text(place, high, name, ha="center", va="center", bbox=box, fontsize=9)
            axes.text(place, high + 0.55, width, ha="center", fontsize=8.5, color="#444444")
        arrows(axes, [(begin, 0), (join - 0.35, 0)], width=3, gap=0.2)
        circle = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#444444"}
        axes.text(join, 0, "+", ha="center", va="center", bbox=circle, fontsize=12)
        begin = join + 0.35
    arrows(axes, [(begin, 0), (begin + 1.3, 0)], width=3, gap=0.2)
    axes.text(-1, -0.95, "the stream x; above a layer: its output's channels", fontsize=9.5)
    axes.text(13, -0.95, "forward: solid", color=FORWARD, fontsize=9.5)
    axes.text(17, -0.95, "gradients: dashed, the other way", color=BACKWARD, fontsize=9.5)
    figure.savefig(path, dpi=120)


def split(path):
    """Shares of flops, by formula, beside shares of time, as measured by bench.step."""
    config = GPT2Config()
    L, C, V = config.n_layer, config.n_embd, config.vocab_size
    rows = []
    for T in (64, 1024):
        parts = json.loads((RESULTS / f"step_4x{T}.json").read_text())["breakdown"]["seconds"]
        products, attention = 12 * L * C**2 + V * C, L * (T + 1) * C  # both times 2 B T, and 3
        known = parts["matrix products"], parts["attention"], parts["AdamW"]
        rows.append((f"T={T}, flops", (products, attention, 0, 0)))
        rows.append((f"T={T}, time", (*known, sum(parts.values()) - sum(known))))
    names = "products with weights", "attention", "AdamW", "all other layers"
    figure, axes = plt.subplots(figsize=(8.4, 2.7), layout="constrained")
    for y, (_, parts) in enumerate(rows):
        left = 0.0
        for i, part in enumerate(parts):
            share = 100 * part / sum(parts)
            axes.barh(
                y, share, left=left, height=0.66, color=COLOURS[i], edgecolor="white",
                hatch=("", "//", "..", "xx")[i], label=names[i] if y == 0 else None,
            )  # fmt: skip
            if share > 3:
                text = {"ha": "center", "va": "center", "fontsize": 9}
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
                axes.text(left + share / 2, y, f"{share:.0f}", bbox=box, **text)
            left += share
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="per cent of a training step of GPT-2 124M, B=4")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)


stream(HERE / "stream.png")
if not RESULTS.is_dir():
    sys.exit(f"split.png is not drawn: there are no results of bench.step in {RESULTS}")
split(HERE / "split.png")

"""Draw stream.png, paths.svg and split.png.

python doc/gpt2/figures.py

stream.png: a block, forward and backward. paths.svg: a stream of two branches with its numbers.
split.png: where a training step's time goes, by the results of `python -m bench.step` on an Intel
CPU with AMX, at T=64 and T=1024; it is drawn where both are there.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, INK, ORANGE, arrow, box, canvas, grid, note, plain, save
from graph import GAP, edge, legend

from npgpt import GPT2Config, layers
from npgpt.inside.figure import COLOURS

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "bench" / "results" / "intel-amx"

# A stream of C = 2 numbers with two branches that are matmuls, and the gradient at its top.
X = np.array([1.0, 2.0])  # (C,)
BRANCHES = np.array([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, -1.0]]])  # (2, C, C)
TOP = np.array([1.0, 2.0])  # (C,)


def stream(path):
    """The stream downwards on the left; two branches of four layers leave it and come back."""
    figure, axes = canvas(5.4, 5.5)
    left, above = 0.5, 0.4
    note(axes, left, 0.2, "x (B, T, C)", 10)
    for top, names, widths, gradients in (
        (0.45, ("ln1:\nlayernorm", "qkv:\nmatmul", "attention", "attproj:\nmatmul"),
         ("C", "3C", "C", "C"),
         ("dln1", "dqkv", "datty")),
        (2.75, ("ln2:\nlayernorm", "fc:\nmatmul", "gelu", "fcproj:\nmatmul"),
         ("C", "4C", "4C", "C"),
         ("dln2", "dfch", "dact")),
    ):  # fmt: skip
        middle, join = top + 0.6, top + 1.75
        places = [1.55 + 1.1 * i for i in range(4)]
        for place, name, width in zip(places, names, widths, strict=True):
            box(axes, place, middle, name, GREEN, 0.9, 0.46, 9)
            note(axes, place, middle - 0.38, width, 9.5)
        edge(axes, (left + 0.1, middle), (places[0] - 0.47, middle))
        for here, there, gradient in zip(places, places[1:], gradients, strict=False):
            edge(axes, (here + 0.46, middle), (there - 0.46, middle))
            note(axes, (here + there) / 2, middle + 0.37, gradient, 9, family="monospace")
        x, y = places[-1] + GAP, join + GAP  # where the way from the branch turns
        axes.plot([x, x], [middle + 0.24, y], color=BLUE, linewidth=1.6)
        arrow(axes, (x, y), (left + 0.2, y), colour=BLUE)
        x, y = places[-1] - GAP, join - GAP  # and where the way back does
        axes.plot([left + 0.2, x], [y, y], "--", color=ORANGE, linewidth=1.6)
        arrow(axes, (x, y), (x, middle + 0.24), "dx", ORANGE, line="--")
        edge(axes, (left, above), (left, join - 0.2), "dx", at=0.72)
        box(axes, left, join, "+", GREY, 0.34, 0.34, 12)
        above = join + 0.18
    edge(axes, (left, above), (left, 5.3))
    note(axes, 0.75, 2.63, "the residual stream", 9.5, ha="left")
    note(axes, 1.2, 5.14, "above each layer: how many\nchannels its output has", 9.5, ha="left")
    note(axes, 0.2, 5.42, "x (B, T, C), for the next block", 10, ha="left")
    legend(axes, 3.9, 5.0)
    figure.savefig(path, dpi=160, transparent=True)


def flow():
    """-> the values of the stream (3, C), its gradients (3, C), and each path's share of the last.

    By npgpt.layers; a path is a pair of bools, whether it takes the first and the second branch.
    """
    x, caches = [X], []
    for w in BRANCHES:
        out, cache = layers.matmul_forward(x[-1][None, None], w, np.zeros(2))  # (1, 1, C)
        x.append(x[-1] + out[0, 0])
        caches.append(cache)

    def back(gradient, k):
        return layers.matmul_backward(gradient[None, None], caches[k])[0][0, 0]  # (C,)

    g = [TOP]
    for k in (1, 0):
        g.append(g[-1] + back(g[-1], k))
    both = ((first, second) for second in (False, True) for first in (False, True))
    paths = {}
    for first, second in both:
        share = back(TOP, 1) if second else TOP
        paths[first, second] = back(share, 0) if first else share
    np.testing.assert_array_equal(sum(paths.values()), g[-1])
    return x, g[::-1], paths


def paths(path):
    """The numbers of the stream forward and backward, and below them the four paths back."""
    x, g, shares = flow()
    figure, axes = canvas(5.3, 4.9)
    cell = (0.36, 0.3)
    for i in range(3):
        left = 0.15 + 2.12 * i
        grid(axes, left, 1.6, x[i][None], f"x{i}", BLUE, cell=cell, form=".0f")
        grid(axes, left, 2.25, g[i][None], f"dx{i}", ORANGE, cell=cell, form=".0f")
    for i, w in enumerate(BRANCHES):
        left = 0.15 + 2.12 * i
        grid(axes, left + 0.98, 0.35, w, f"w{i}", GREEN, cell=cell, form=".0f")
        arrow(axes, (left + 0.8, 1.75), (left + 2.05, 1.75), colour=BLUE)
        arrow(axes, (left + 2.05, 2.4), (left + 0.8, 2.4), colour=ORANGE, line="--")
        arrow(axes, (left + 0.45, 1.3), (left + 0.93, 0.75), colour=BLUE)
        arrow(axes, (left + 1.75, 0.75), (left + 2.05, 1.6), colour=BLUE)
        note(axes, left + 1.35, 1.55, "+", 13)
    note(axes, 0.15, 2.85, "dx0 is the sum of four paths from dx2 down:", ha="left")
    for row, ((first, second), share) in enumerate(shares.items()):
        taken = [f"w{i}" for i, taken in enumerate((first, second)) if taken]
        words = f"through {' and '.join(reversed(taken))}" if taken else "past both branches"
        y = 3.1 + 0.42 * row
        grid(axes, 0.15, y, share[None], "", ORANGE, cell=cell, form=".0f")
        note(axes, 1.1, y + 0.15, words, ha="left")
    save(figure, path)


def split(path):
    """Shares of flops, by formula, beside shares of time, as measured by bench.step."""
    config = GPT2Config()
    L, C, V = config.n_layer, config.n_embd, config.vocab_size
    rows = []
    for T in (64, 1024):
        parts = json.loads((RESULTS / f"step_4x{T}.json").read_text())["breakdown"]["seconds"]
        products, attention = 12 * L * C**2 + V * C, L * (T + 1) * C  # both times 2 B T, and 3
        known = parts["matrix products"], parts["attention"], parts["AdamW"]
        rows.append((f"T={T}\nflops", (products, attention, 0, 0)))
        rows.append((f"T={T}\ntime", (*known, sum(parts.values()) - sum(known))))
    names = "products with weights", "attention", "AdamW", "all other layers"
    figure = Figure(figsize=(5.4, 3.9), layout="constrained")
    axes = figure.subplots()
    for y, (_, parts) in enumerate(rows):
        left = 0.0
        for i, part in enumerate(parts):
            share = 100 * part / sum(parts)
            axes.barh(
                y, share, left=left, height=0.66, color=COLOURS[i], edgecolor="white",
                hatch=("", "//", "..", "xx")[i], label=names[i] if y == 0 else None,
            )  # fmt: skip
            if share > 4:
                card = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
                note(axes, left + share / 2, y, f"{share:.0f}", 10, INK, bbox=card)
            left += share
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    plain(axes, xlim=(0, 100), xlabel="per cent of a training step of GPT-2 124M, B=4")
    axes.grid(False)
    key = figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=10)
    for text in key.get_texts():
        text.set_color(GREY)
    figure.savefig(path, dpi=160, transparent=True)


if __name__ == "__main__":
    stream(HERE / "stream.png")
    paths(HERE / "paths.svg")
    missing = [T for T in (64, 1024) if not (RESULTS / f"step_4x{T}.json").is_file()]
    if missing:
        sys.exit(f"split.png is not drawn: no results of bench.step at T={missing} in {RESULTS}")
    split(HERE / "split.png")

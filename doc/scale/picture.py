"""Draw ring.svg, an all-reduce of four ranks, and efficiency.svg, over nodes, as predicted.

python doc/scale/picture.py
"""

import json
import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, PINK, arrow, canvas, grid, note, plain, save

import npgpt
from npgpt.core.parameters import count_parameters
from npgpt.parallel.plan import Cluster, Machine, efficiency

HERE = Path(__file__).parent
N = 4
COLOURS = BLUE, ORANGE, GREEN, PINK
RESULT = HERE.parents[1] / "bench" / "results" / "intel-amx" / "step_4x1024.json"
LINKS = (("100 Gb/s", 12.5e9, BLUE), ("10 Gb/s", 1.25e9, ORANGE), ("1 Gb/s", 1.25e8, GREEN))


def machine():
    """The Machine of a result of bench.step: GPT-2 124M, B=4, T=1024, on all cores of one machine.

    The seconds of the matrix products are divided among blocks and head, and those of a block
    among forward and backward pass, by their flops.
    """
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    seconds, L, C, V = result["breakdown"]["seconds"], 12, 768, 50257
    in_head = V / (V + 12 * L * C)
    rest = seconds["matrix products"] * in_head + seconds["softmax and loss"] + seconds["encoder"]
    block = (sum(seconds.values()) - rest - seconds["AdamW"]) / L
    return Machine(
        block_forward=block / 3, block_backward=2 / 3 * block, rest=rest,
        update=seconds["AdamW"] / count_parameters(npgpt.PUBLISHED["124M"]),
        copy=2 / statistics.median(result["limit"]["memory"]),  # a byte is read and one is written
        threads=result["machine"]["threads"],
    )  # fmt: skip


def held(step):
    """For each rank and part, the ranks whose terms its sum has after so many steps."""
    have = [[{rank} for _ in range(N)] for rank in range(N)]
    for k in range(step):
        if k < N - 1:
            sent = [(r, (r - k) % N, have[r][(r - k) % N]) for r in range(N)]
        else:
            sent = [
                (r, (r + 1 - (k - N + 1)) % N, have[r][(r + 1 - (k - N + 1)) % N]) for r in range(N)
            ]
        for r, part, terms in sent:
            have[(r + 1) % N][part] = have[(r + 1) % N][part] | terms
    return have


def ring():
    figure, axes = canvas(7.0, 4.3)
    for column, step in enumerate((0, 1, 3, 4, 6)):
        have = held(step)
        x = 0.75 + 1.28 * column
        title = {0: "at first", 1: "step 1", 3: "step 3", 4: "step 4", 6: "step 6"}[step]
        note(axes, x + 0.5, 0.25, title, 11)
        for rank in range(N):
            if column == 0:
                note(axes, 0.35, 0.85 + 0.85 * rank, f"rank {rank}", 10)
            cells = [[str(len(have[rank][part])) for part in range(N)]]
            done = [(0, part) for part in range(N) if len(have[rank][part]) == N]
            grid(
                axes, x, 0.68 + 0.85 * rank, cells, colour=COLOURS[rank], marked=done,
                cell=(0.26, 0.34),
            )  # fmt: skip
            if rank < N - 1:
                arrow(
                    axes,
                    (x + 0.52, 1.06 + 0.85 * rank),
                    (x + 0.52, 1.48 + 0.85 * rank),
                    colour=GREY,
                )
    note(
        axes,
        3.5,
        4.05,
        "each cell: how many ranks' terms the part's sum has; rank 3 sends to rank 0",
        10,
    )
    save(figure, HERE / "ring.svg")


def chart():
    figure = Figure(figsize=(6.2, 3.4))
    axes = figure.add_axes((0.11, 0.16, 0.86, 0.78))
    nodes = [2**k for k in range(11)]
    for name, bandwidth, colour in LINKS:
        shares = [
            efficiency(npgpt.PUBLISHED["124M"], machine(), Cluster(n, 1, bandwidth, 2e-6))
            for n in nodes
        ]
        axes.plot(nodes, shares, "o-", color=colour, markersize=4, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(nodes, [f"{n:,}" for n in nodes], fontsize=8)
    axes.set_ylim(0, 1.08)
    axes.legend(frameon=False, loc="lower left")
    plain(axes, xlabel="nodes, with one rank each", ylabel="efficiency")
    save(figure, HERE / "efficiency.svg")


if __name__ == "__main__":
    ring()
    chart()

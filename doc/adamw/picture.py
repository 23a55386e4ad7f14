"""Draw adamw.png: the correction of the bias, and two kinds of weight decay.

python doc/adamw/picture.py
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed

from npgpt import layers
from npgpt.inside.figure import COLOURS

STEPS, LR, DECAY = 1000, 2e-3, 0.2


def correction(axes):
    t = np.arange(1, 10_001)
    axes.plot(t, (1 - 0.9**t) / np.sqrt(1 - 0.999**t), "--", color=COLOURS[1], label="uncorrected")
    axes.plot(t, np.ones(t.size), color=COLOURS[0], label="corrected")
    axes.set(xscale="log", ylim=(0, 7), xlabel="step t", ylabel="size of the step / lr")
    axes.set_title("a steady gradient", fontsize=10)
    axes.legend(frameon=False)


def decay(axes):
    sizes = np.array([[1.0], [100.0]])  # (2, 1)
    for decoupled, colour, style in ((True, COLOURS[0], "-"), (False, COLOURS[1], "--")):
        noise = np.random.default_rng(1)
        p, m, v = np.ones((2, 2000)), np.zeros((2, 2000)), np.zeros((2, 2000))
        means = [p.mean(-1)]
        for t in range(1, STEPS + 1):
            g = sizes * noise.standard_normal(p.shape)  # (2, 2000)
            g += 0 if decoupled else DECAY * p
            numbers = (t, LR, 0.9, 0.999, 1e-8, DECAY if decoupled else 0.0)
            layers.adamw_update(p, g, m, v, *numbers)
            means.append(p.mean(-1))
        for i, size in enumerate((1, 100)):
            name = f"{'decoupled' if decoupled else 'L2'}, gradients of size {size}"
            axes.plot(
                [row[i] for row in means], style, color=colour, label=name,
                marker="os"[i], markevery=(100 * i, 200), markersize=5,
            )  # fmt: skip
    axes.set(xlabel="step t", ylabel="mean weight", ylim=(0.4, 1.03))
    axes.set_title("gradients of noise alone, and a pull to 0", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def main():
    figure = Figure(figsize=(8, 3.3), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 2), (correction, decay), strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(Path(__file__).with_name("adamw.png"), dpi=110)


if __name__ == "__main__":
    main()

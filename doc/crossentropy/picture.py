"""Draw crossentropy.png: the probabilities of a position, and the gradient of its logits.

python doc/crossentropy/picture.py
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed

from npgpt.inside.figure import COLOURS

LOGITS = np.array([1.0, 2.2, -0.5, 1.6, 0.3, -1.0, 0.8])  # (V,)
TARGET = 3


def main():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()  # (V,)
    onehot = np.eye(len(p))[TARGET]  # (V,)
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = ((p, "probs", r"$p_v$"), (p - onehot, "dlogits", r"$p_v - \delta_{vy}$"))
    for axes, (heights, title, label) in zip(figure.subplots(1, 2), panels, strict=True):
        bars = axes.bar(range(len(p)), heights, color=COLOURS[5], edgecolor="black")
        bars[TARGET].set(facecolor=COLOURS[1], hatch="//", label="the target")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel="token v", ylabel=label, ylim=(-0.85, 0.55), title=title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    figure.savefig(Path(__file__).with_name("crossentropy.png"), dpi=110)


if __name__ == "__main__":
    main()

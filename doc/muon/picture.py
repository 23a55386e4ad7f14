"""Draw polynomial.svg and spectrum.svg.

python doc/muon/picture.py

polynomial.svg: what one and five of Newton-Schulz's iterations do to a singular value.
spectrum.svg: the singular values of a gradient of the tiny model, and of what Muon makes of it.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # npgpt need not be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for drawing

from drawing import BLUE, GREEN, GREY, ORANGE, plain, save

import npgpt
from npgpt.layers.muon import A, B, C, orthogonalize

HERE = Path(__file__).parent
ASSETS = Path(npgpt.__file__).parent / "assets"


def iterate(s, iterations):
    for _ in range(iterations):
        s = A * s + B * s**3 + C * s**5
    return s


def polynomial(path):
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    s = np.linspace(0, 1, 2001)
    axes.axhspan(0.68, 1.21, color=GREY, alpha=0.15, linewidth=0)
    axes.plot(s, s, ":", color=GREY, label="before")
    axes.plot(s, iterate(s, 1), "--", color=ORANGE, label="after 1 iteration")
    axes.plot(s, iterate(s, 5), color=BLUE, label="after 5")
    axes.set(xlim=(0, 1), ylim=(0, 1.3))
    axes.legend(frameon=False, loc="lower right")
    plain(axes, xlabel="singular value, divided by the norm", ylabel="what becomes of it")
    save(figure, path)


def spectrum(path):
    params = npgpt.read_checkpoint(ASSETS / "tiny.bin")
    state = npgpt.read_debug_state(ASSETS / "tiny_debug_state.bin", params)
    gradient = state.grads.fcw[0].astype(np.float64)  # (4C, C)
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for matrix, colour, marker, label in (
        (gradient / np.linalg.norm(gradient), ORANGE, "o", "the gradient, of norm 1"),
        (orthogonalize(gradient), BLUE, "s", "orthogonalized"),
    ):
        values = np.linalg.svd(matrix, compute_uv=False)
        axes.plot(
            range(1, len(values) + 1), values, marker, color=colour, markersize=4, label=label
        )
    axes.set(yscale="log")
    axes.axhline(1, color=GREEN, linewidth=1)
    axes.legend(frameon=False, loc="lower left")
    plain(axes, xlabel="singular values, the largest first", ylabel="size")
    save(figure, path)


if __name__ == "__main__":
    polynomial(HERE / "polynomial.svg")
    spectrum(HERE / "spectrum.svg")

"""Draw the losses of training runs, read from their folders' log.jsonl, into one picture.

Of each run the thin line is every step's training loss, the bold one its running mean, and the
markers are the validation loss. What has been logged twice, before and after a run was resumed,
counts as it was logged last.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npgpt.errors import ArgumentError, FileError
from npgpt.files import atomic_write, open_for_reading
from npgpt.inside.figure import COLOURS, new_figure

AXES = {
    "step": "updates done",
    "tokens": "tokens trained on",
    "seconds": "time spent on updates (seconds)",
}
LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX"


@dataclass
class Curve:
    """A run's losses: of training, loss (n,) at x (n,), and of validation, val_loss (m,) at val_x.

    x counts what had been done when a loss was computed: updates, tokens or seconds.
    """

    name: str
    x: np.ndarray
    loss: np.ndarray
    val_x: np.ndarray
    val_loss: np.ndarray


def curves(folders, x="step"):
    """The Curve of each run, its folder's name being the run's; x is one of AXES.

    Raises FileError where a folder has no log, nothing in it, or a line that makes no sense.
    """
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = folders
    names = [os.fsencode(name).decode("utf-8", "replace") for name in names]
    return [read_curve(folder, name, x) for folder, name in zip(folders, names, strict=True)]


def read_curve(folder, name, x):
    train, val = read_log(folder)
    rows = np.array([(step, *train[step]) for step in sorted(train)]).reshape(-1, 4)
    steps, loss, seconds, speed = rows.T
    val_steps, val_loss = np.array([(step, *val[step]) for step in sorted(val)]).reshape(-1, 2).T
    if x == "step":  # the loss of step 1 is that of the model before any update
        return Curve(name, steps - 1, loss, val_steps, val_loss)
    spent = np.cumsum(seconds if x == "seconds" else seconds * speed)
    done = np.concatenate([[0.0], spent])  # (n + 1,): before the first update and after each
    updates = np.searchsorted(steps, val_steps, side="right")  # (m,): as many came before it
    return Curve(name, done[:-1], loss, done[updates], val_loss)


def read_log(folder):
    """Read log.jsonl -> {step: (loss, seconds, tokens a second)}, {step: (validation loss,)}."""
    path = Path(folder) / "log.jsonl"
    if not os.path.exists(path):
        raise FileError(f"{folder}: not a run: it has no {path.name}")
    with open_for_reading(path) as (file, _):
        *lines, _ = file.read().split(b"\n")  # what has no end yet is being written, or never was
    train, val = {}, {}
    for number, line in enumerate(lines, 1):
        try:
            step, *values = parse_line(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(f"{path}: line {number} is no entry of a run's log") from error
        (val if len(values) == 1 else train)[step] = values
    if not (train or val):
        raise FileError(f"{path}: there are no losses in it yet")
    return train, val


def parse_line(line):
    """A line of the log -> its step and three values of training, or its step and one loss."""
    entry = json.loads(line, parse_int=float)
    names = ["val_loss"] if "val_loss" in entry else ["loss", "seconds", "tokens_per_second"]
    step, loss, *others = (entry[name] for name in ["step", *names])
    if not all(isinstance(value, float) for value in (step, loss, *others)):
        raise ValueError("not a number")
    if not all(math.isfinite(value) and value >= 0 for value in (step, *others)):
        raise ValueError("not from 0")
    return step, loss if math.isfinite(loss) else math.nan, *others


def smoothed(loss, reach):
    """The mean of each of loss (n,) and its neighbours, up to reach of them on either side.

    At the beginning, where it falls fast, it takes no more from behind than there is in front, and
    so begins with the first loss; at the end it takes what there is.
    """
    reaches = [min(reach, i) for i in range(len(loss))]
    return np.array([loss[i - r : i + r + 1].mean() for i, r in enumerate(reaches)])


def picture(curves, x="step", smooth=None):
    """Draw Curves -> a matplotlib Figure; smooth is the reach of the mean, or None: n // 50."""
    figure = new_figure(8, 4.5)
    from matplotlib.ticker import EngFormatter

    axes = figure.subplots()
    for i, curve in enumerate(curves):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        reach = len(curve.loss) // 50 if smooth is None else smooth
        axes.plot(curve.x, curve.loss, color=colour, linewidth=0.7, alpha=0.35)
        axes.plot(
            curve.x, smoothed(curve.loss, reach), LINES[i % len(LINES)], color=colour,
            linewidth=1.8, label=f"training, {curve.name}",
        )  # fmt: skip
        if len(curve.val_loss):
            axes.plot(
                curve.val_x, curve.val_loss, marker, color=colour, markersize=6,
                markeredgecolor="white", zorder=3, label=f"validation, {curve.name}",
            )  # fmt: skip
    axes.set(xlabel=AXES[x], ylabel="loss (nats per token)")
    if x == "tokens":
        axes.xaxis.set_major_formatter(EngFormatter())  # 5 M instead of 0.5 and, aside, 1e7
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False)
    legend.set_in_layout(False)  # a long name must not push the axes aside
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may have dollars in it
    return figure


def draw(folders, out, x="step", smooth=None):
    """Write the picture of the runs' losses as the PNG file out."""
    if Path(out).suffix.lower() != ".png":
        raise ArgumentError(f"a picture's name must end in .png, not {Path(out).name}")
    figure = picture(curves(folders, x), x, smooth)
    with atomic_write(out) as file:
        figure.savefig(file, format="png", dpi=120)


def draw_run(folder):
    """Write a run's own picture, loss.png in its folder -> the picture's path."""
    out = Path(folder) / "loss.png"
    draw([folder], out)
    return out

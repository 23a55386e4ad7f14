"""The picture of a step's result: seconds of each system, and where npgpt's go."""

import hashlib
import json
from statistics import median

from bench import tables


def digest(result):
    """What a picture and the result that it shows have in common."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


def draw(path, result):
    """Draw a step's result; the file's Comment is the result's digest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    names = list(result["systems"])[::-1]
    medians = [median(result["systems"][name]["seconds"]) for name in names]
    colours = ["#1f6f8b" if name.startswith("npgpt") else "#c9c9c9" for name in names]
    left.bar_label(left.barh(names, medians, color=colours), fmt="%.3g s", padding=3)
    sizes = f"B={result['B']}, T={result['T']}"
    left.set(title=f"a training step of {tables.model(result)}, {sizes}", xlabel="seconds")
    precision, seconds = result["breakdown"]["precision"], result["breakdown"]["seconds"]
    names = sorted(seconds, key=seconds.get)
    shares = [100 * seconds[name] / sum(seconds.values()) for name in names]
    right.bar_label(right.barh(names, shares, color="#1f6f8b"), fmt="%.1f %%", padding=3)
    right.set(
        title=f"where npgpt's step in {precision} spends its time", xlabel="per cent of the step"
    )
    for axes in (left, right):
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Comment": digest(result)})
    plt.close(figure)

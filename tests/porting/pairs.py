"""Which of the twelve pairs catches which mistake: made in a copy of the textbook, in float32.

    PYTHONPATH=. python tests/porting/pairs.py

prints the table of doc/porting/pairs.md.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from porting.planted import CATALOGUE, QUIET, Buggy  # noqa: E402

from npgpt.core.precision import FP32_TOLERANCES  # noqa: E402
from npgpt.porting.reference import PAIR_UPDATES, PAIRS, make_pair  # noqa: E402
from npgpt.tracing.record import Recorder  # noqa: E402

ROUNDING = np.finfo(np.float32).eps


def results(recorder):
    """What a debug state and its losses hold: {name: array}."""
    kept = {}

    def see(name, array):
        if name in ("logits", "loss") or name.startswith("step_loss"):
            kept[name] = np.array(array, np.float64)

    def see_gradients(grads):
        kept.update({f"d{name}": view.astype(np.float64) for name, view in grads.items()})

    with np.errstate(all="ignore"):
        recorder.run(see, with_gradients=see_gradients)
    return kept


def caught(expected, found):
    """Whether npgpt test's tolerances tell the results apart."""
    largest = max(np.abs(value).max() for name, value in expected.items() if name[0] == "d")
    for name, right in expected.items():
        diff = np.abs(found[name] - right).max()
        if name.startswith("d"):
            relative = np.linalg.norm(found[name] - right) / max(np.linalg.norm(right), 1e-38)
            close = relative <= FP32_TOLERANCES["grads"]
            close &= diff <= FP32_TOLERANCES["grads"] * np.abs(right).max()
            close |= diff <= ROUNDING * largest
        else:
            kind = "losses" if name.startswith("step") else name
            close = diff <= FP32_TOLERANCES[kind]
        if not close:
            return True
    return False


def catches():
    """{mistake: the names of the pairs that catch it}; a right model is caught by none."""
    found = {bug.name: [] for bug in (*CATALOGUE, *QUIET)}
    updates = PAIR_UPDATES._replace(steps=PAIR_UPDATES.steps - 1)
    for pair in PAIRS:
        params, x, y = make_pair(pair)
        expected = results(Recorder(params, x, y, updates=updates))
        right = results(Recorder(params, x, y, backend="numpy", updates=updates))
        assert not caught(expected, right), pair
        for bug in (*CATALOGUE, *QUIET):
            steps = updates if bug.source == "adamw" else updates._replace(steps=0)
            try:
                wrong = results(Buggy(bug, params, x, y, backend="numpy", updates=steps))
                few = {name: value for name, value in expected.items() if name in wrong}
                is_caught = caught(few, wrong)
            except (ValueError, IndexError):  # shapes that do not fit: a program would crash
                is_caught = True
            if is_caught:
                found[bug.name].append(pair)
    return found


def table():
    """The table in Markdown: a row a mistake, a column a pair."""
    head = "| mistake | " + " | ".join(PAIRS) + " |"
    lines = [head, "| --- |" + " :-: |" * len(PAIRS)]
    for mistake, pairs in catches().items():
        marks = " | ".join("x" if pair in pairs else " " for pair in PAIRS)
        lines.append(f"| {mistake} | {marks} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")

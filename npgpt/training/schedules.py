"""Learning rates over a run: a linear warm-up, then one of several ways down.

SCHEDULES is the table. A schedule is a function of how much of its time is gone, from 0 to 1, and
of the fraction of lr that it ends at, to the fraction of lr that it has then. To add one is a
function and an entry.
"""

import math

from npgpt.errors import ArgumentError


def cosine(gone, final):
    """Half a cosine, as in nanoGPT and llm.c."""
    return final + (1 - final) * ((1 + math.cos(math.pi * gone)) / 2)


def linear(gone, final):
    """A straight line."""
    return final + (1 - final) * (1 - gone)


def constant(gone, final):
    """The same learning rate to the end."""
    return 1.0


def wsd(gone, final):
    """Warm up, stay, decay: by the square root of the time gone (Hägele et al. 2024)."""
    return final + (1 - final) * (1 - math.sqrt(gone))


SCHEDULES = {"cosine": cosine, "linear": linear, "constant": constant, "wsd": wsd}
STAYING = (wsd,)  # those whose time is the last steps of a run alone, not all after the warm-up


def learning_rate(
    step, steps, lr, warmup=0, schedule="cosine", final_fraction=0.0, decay_fraction=0.2
):
    """The learning rate of update `step`, from 0, of a run of so many steps.

    It rises over the first `warmup` updates to lr, and falls to final_fraction * lr as the schedule
    (a name in SCHEDULES) says; with wsd over the last decay_fraction of the steps.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if step < warmup:
        return lr * (step + 1) / warmup
    fraction = SCHEDULES[schedule]
    start = warmup
    if fraction in STAYING:
        start = max(warmup, steps - round(decay_fraction * steps))
    gone = min(max(0, step - start) / max(1, steps - start), 1.0)
    return lr * fraction(gone, final_fraction)

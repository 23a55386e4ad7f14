"""Learning rates over a run: a linear warmup, then one of several schedules.

A schedule is a function (progress from 0 to 1, final fraction of lr) -> fraction of lr. To add one,
write a function and add it to SCHEDULES.
"""

import math

from npgpt.errors import ArgumentError


def cosine(progress, final_fraction):
    """Half a cosine, as in nanoGPT and llm.c."""
    return final_fraction + (1 - final_fraction) * ((1 + math.cos(math.pi * progress)) / 2)


def linear(progress, final_fraction):
    """A straight line."""
    return final_fraction + (1 - final_fraction) * (1 - progress)


def constant(progress, final_fraction):
    """The same learning rate to the end."""
    return 1.0


def wsd(progress, final_fraction):
    """Warmup-stable-decay, with 1 - sqrt decay (Hägele et al. 2024)."""
    return final_fraction + (1 - final_fraction) * (1 - math.sqrt(progress))


SCHEDULES = {"cosine": cosine, "linear": linear, "constant": constant, "wsd": wsd}
DECAY_AT_END = (wsd,)  # decay only over the last steps, not from the end of the warmup


def learning_rate(
    step, steps, lr, warmup=0, schedule="cosine", final_lr_fraction=0.0, wsd_decay=0.2
):
    """The learning rate of update `step`, counted from 0, in a run of `steps` updates.

    It rises linearly to lr over the first `warmup` updates, then falls to final_lr_fraction * lr by
    the schedule (a name in SCHEDULES), with wsd over the last wsd_decay * steps updates.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if step < warmup:
        return lr * (step + 1) / warmup
    schedule_function = SCHEDULES[schedule]
    start = warmup
    if schedule_function in DECAY_AT_END:
        start = max(warmup, steps - round(wsd_decay * steps))
    progress = min(max(0, step - start) / max(1, steps - start), 1.0)
    return lr * schedule_function(progress, final_lr_fraction)

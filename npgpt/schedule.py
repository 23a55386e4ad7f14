"""Learning rates over a run: a linear warm-up, then one of four ways down."""

import math

SCHEDULES = ("cosine", "linear", "constant", "wsd")


def learning_rate(step, steps, lr, warmup=0, schedule="cosine", final=0.0, decay=0.2):
    """The learning rate of update `step`, from 0, of a run of so many steps.

    It rises over the first `warmup` updates to lr, and falls to final * lr: by half a cosine, in a
    line, not at all, or (wsd: warm up, stay, decay) over the last `decay` of the steps by the
    square root of the time gone (Hägele et al. 2024).
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    start = warmup if schedule != "wsd" else max(warmup, steps - round(decay * steps))
    gone = min(max(0, step - start) / max(1, steps - start), 1.0)
    if schedule == "cosine":
        left = (1 + math.cos(math.pi * gone)) / 2
    elif schedule == "linear":
        left = 1 - gone
    else:
        left = 1 - math.sqrt(gone)
    return lr * (final + (1 - final) * left)

"""The recipes of bench.learn: how each system trains for each goal, as npgpt's settings."""

import statistics
from dataclasses import dataclass

VOCAB_SIZE = 65  # tinyshakespeare's characters


@dataclass(frozen=True)
class Recipe:
    """Settings of npgpt; after which steps PyTorch validates; and the minutes that it may take.

    With minutes the steps are as many as fit into them.
    """

    settings: dict
    validate_after: range = range(0)
    minutes: int = 0
    timed_steps: int = 12

    def steps_in_time(self, seconds, passed):
        """How many steps fit, by the seconds of the timed ones, after `passed` seconds."""
        left = 0.97 * (60 * self.minutes - passed)  # the rest is for the validation at the end
        return max(1, int(left / statistics.median(seconds[len(seconds) // 2 :])))


@dataclass(frozen=True)
class Goal:
    """A validation loss to reach, None for the best in a time, and each system's Recipe."""

    loss: float | None
    recipes: dict[str, Recipe]


# name -> the options of learn_pytorch.make_step; npgpt has none
SYSTEMS = {
    "npgpt": {},
    "PyTorch, eager": {"compiled": False, "bf16": False},
    "PyTorch, compiled": {"compiled": True, "bf16": False},
    "PyTorch, bf16, compiled": {"compiled": True, "bf16": True},
    "PyTorch, compiled, Muon": {"compiled": True, "bf16": False},
    "PyTorch, bf16, compiled, Muon": {"compiled": True, "bf16": True},
}

# config/train_shakespeare_char.py of nanoGPT with what its README says for a CPU
NANOGPT = {
    "n_layer": 4, "n_head": 4, "n_embd": 128, "B": 12, "T": 64, "steps": 2000, "lr": 1e-3,
    "min_lr": 1e-4, "warmup": 100, "beta2": 0.99,
}  # fmt: skip
# npgpt's own: Muon, a large learning rate that falls to 0 in a straight line
MUON = {
    "optimizer": "muon", "muon_lr": 0.05, "muon_momentum": 0.9, "lr": 1e-2, "beta2": 0.99,
    "schedule": "linear",
}  # fmt: skip
ADAMW = {"lr": 1e-3, "min_lr": 1e-4, "warmup": 100, "beta2": 0.99}  # nanoGPT's
SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 128, "B": 24, "T": 64, "steps": 240}
MEDIUM = {"n_layer": 4, "n_head": 4, "n_embd": 256, "B": 16, "T": 256}


def with_pytorch(own, other, names, **options):
    """The Recipe of npgpt, of the named systems of PyTorch, and npgpt's own with PyTorch's Muon."""
    recipes = {"npgpt": Recipe(own, **options)}
    for name in names:
        theirs = own if name.endswith("Muon") else other
        recipes[name] = Recipe(theirs, range(100, theirs.get("steps", 0), 100), **options)
    return recipes


GOALS = {
    "1.90": Goal(1.90, with_pytorch({**SMALL, **MUON}, NANOGPT, list(SYSTEMS)[1:])),
    "1.55": Goal(
        1.55,
        with_pytorch(
            {**MEDIUM, **MUON, "steps": 700}, {**MEDIUM, **ADAMW, "steps": 2500},
            list(SYSTEMS)[2:],
        ),
    ),
    "20 minutes": Goal(
        None,
        with_pytorch(
            # npgpt reads the text ten times, so it has dropout. With that a step of PyTorch's takes
            # more than twice as long; its AdamW learns more without, as nanoGPT advises for CPUs.
            {**MEDIUM, **MUON, "dropout": 0.1}, {**MEDIUM, **ADAMW},
            list(SYSTEMS)[2:],
            minutes=20,
        ),
    ),
}  # fmt: skip

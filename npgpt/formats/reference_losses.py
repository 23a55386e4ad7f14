"""The losses that PyTorch printed for a debug state: where they are, and their JSON format."""

import sys
from dataclasses import dataclass
from pathlib import Path

from npgpt.core.config import PUBLISHED
from npgpt.errors import FileError
from npgpt.files import read_json

# What PyTorch printed for gpt2_124M_debug_state.bin, as llm.c's test_gpt2.c has it.
LOSSES_124M = [
    5.270007133483887,
    4.059706687927246,
    3.3751230239868164,
    2.8007826805114746,
    2.315382242202759,
    1.8490285873413086,
    1.3946564197540283,
    0.9991465210914612,
    0.6240804195404053,
    0.37651097774505615,
]


@dataclass
class ReferenceLosses:
    """The expected loss of each step, and the AdamW that stepped: learning rate and decay."""

    losses: list
    lr: float
    weight_decay: float
    source: str


def find_losses(state_path, state, path=None):
    """The losses that go with a debug state -> ReferenceLosses, or None where none are known.

    From the JSON file at path; else, for the state of OpenAI's 124M model, told by its sizes and
    its loss, the built-in ones; else from the JSON file beside the state: its name with
    .losses.json or losses.json.
    """
    if path is not None:
        return read_losses(path)
    is_124M = state.grads.config == PUBLISHED["124M"] and state.x.shape == (4, 64)
    if is_124M and abs(state.loss - LOSSES_124M[0]) < 1e-5:
        return ReferenceLosses(LOSSES_124M, 1e-4, 0.0, "known for OpenAI's 124M model")
    state_path = Path(state_path)
    for name in (f"{state_path.stem}.losses.json", f"{state_path.name}.losses.json", "losses.json"):
        beside = state_path.with_name(name)
        if beside.exists():
            return read_losses(beside)
    return None


def read_losses(path):
    """Read {"losses": [...], "lr": ..., "weight_decay": ...}; FileError where it is not that."""
    content = read_json(path)
    keys = {"losses", "lr", "weight_decay"}
    if set(content) != keys:
        raise FileError(f"{path}: must be an object with the keys losses, lr and weight_decay")
    losses, lr, weight_decay = content["losses"], content["lr"], content["weight_decay"]
    if not isinstance(losses, list) or not losses or not all(map(is_number, losses)):
        raise FileError(f"{path}: losses must be a list of at least one finite number")
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if not is_number(value) or value < 0:
            raise FileError(f"{path}: {name} must be a finite number of at least 0, not {value!r}")
    return ReferenceLosses(losses, lr, weight_decay, Path(path).name)


def is_number(value):
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < sys.float_info.max  # a float cannot hold an int of 400 digits

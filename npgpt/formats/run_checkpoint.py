"""A training run's checkpoints: one folder each, written atomically.

`model.bin` has the weights (llm.c's version 3). `state.bin` has the moments: a header of 256 int32
(magic 20261122, version 1, the parameter count's low 31 bits, its high bits), then each as float32.
`state.json` has everything else that an exact resumption needs.
"""

import json
import os
import shutil
from pathlib import Path

from npgpt.core.parameters import Parameters, count_parameters
from npgpt.data.tokenizer import write_tokenizer
from npgpt.errors import FileError
from npgpt.files import (
    HEADER_BYTES,
    PARTIAL,
    atomic_write,
    check_size,
    open_for_reading,
    pack_header,
    read_header,
    read_into,
)
from npgpt.formats.llmc import read_checkpoint, write_checkpoint

MAGIC = 20261122
CHECKPOINTS = "checkpoints"


def checkpoint_folder(run, step):
    """The folder of a step's checkpoint in the run's folder."""
    return Path(run) / CHECKPOINTS / f"step_{step:08d}"


def checkpoint_steps(run):
    """The steps for which a run's folder has a checkpoint, ascending."""
    names = (path.name for path in (Path(run) / CHECKPOINTS).glob("step_*"))
    return sorted(int(name[5:]) for name in names if name[5:].isdecimal())


def best_step(run):
    """The step with the lowest validation loss, else the last step; None without checkpoints."""
    steps, losses = checkpoint_steps(run), {}
    for step in steps:
        state = read_state(checkpoint_folder(run, step))
        if state["val_loss"] is not None:
            losses[step] = state["val_loss"]
    if losses:
        return min(losses, key=losses.get)
    return steps[-1] if steps else None


def save_checkpoint(folder, params, tokenizer, state):
    """Write a checkpoint atomically: to a .partial folder, synced, then renamed.

    tokenizer is a description or None. The Parameters in the dict `state` go to state.bin in order,
    all its other values, which must be JSON-serializable, to state.json.
    """
    moments = [value for value in state.values() if isinstance(value, Parameters)]
    rest = {key: value for key, value in state.items() if not isinstance(value, Parameters)}
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_checkpoint(partial / "model.bin", params)
        if tokenizer is not None:
            write_tokenizer(partial / "model.bin", tokenizer)
        write_moments(partial / "state.bin", params.config, moments)
        with atomic_write(partial / "state.json") as file:
            file.write(json.dumps(rest, indent=1).encode())
        sync(partial)
        os.rename(partial, folder)
        sync(folder.parent)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # already renamed, or the write failed


def sync(folder):
    """fsync a folder, so that its entries survive a crash; does nothing on Windows."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_checkpoint(folder):
    """Remove a checkpoint; renamed first, so that no half-removed one looks complete."""
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        os.rename(folder, partial)
    except OSError as error:
        raise FileError(f"{folder}: cannot be removed: {error.strerror}") from error
    shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(folder, moment_names):
    """Read a checkpoint -> Parameters, state; state[name] is Parameters for moment_names."""
    params, state = read_checkpoint(folder / "model.bin"), read_state(folder)
    read = read_moments(folder / "state.bin", params.config, len(moment_names))
    return params, {**state, **dict(zip(moment_names, read, strict=True))}


def read_state(folder):
    """Read state.json -> a dict with "step", "val_loss", ..."""
    path = folder / "state.json"
    with open_for_reading(path) as (file, _):
        try:
            state = json.load(file)
            numbers = state["step"], state["val_loss"] or 0
            if not all(isinstance(number, (int, float)) for number in numbers):
                raise ValueError("step and val_loss must be numbers")
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path}: the state is damaged: {error}") from error
    return state


def write_moments(path, config, moments):
    """Write an optimizer's moments, a list of Parameters of a model of this config."""
    size = count_parameters(config)
    with atomic_write(path) as file:
        file.write(pack_header(MAGIC, 1, size & 0x7FFFFFFF, size >> 31))
        for moment in moments:
            file.write(moment.flat.astype("<f4", copy=False))


def read_moments(path, config, count):
    """Read `count` moments of a model of this config -> a list of Parameters."""
    with open_for_reading(path) as (file, size):
        _, version, low, high = read_header(file, size, path, "training state", MAGIC, n_used=4)
        if version != 1:
            raise FileError(f"{path}: training state version {version} is not supported, only 1")
        n_params, found = count_parameters(config), low + (high << 31)
        if found != n_params:
            raise FileError(
                f"{path}: has moments of {found} parameters, but model.bin has {n_params}"
            )
        check_size(path, size, HEADER_BYTES + 4 * count * n_params, "a state of this header")
        moments = [Parameters(config) for _ in range(count)]
        for moment in moments:
            read_into(file, moment.flat, path)
    return moments

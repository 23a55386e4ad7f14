"""A training run's checkpoints: in its folder, each a folder that is complete or absent.

`model.bin` has the weights (llm.c's version 3), `state.bin` the optimizer's moments (a header of
256 int32, magic 20261122, version 1, then one after the other as float32), `state.json` everything
else that a run needs to go on from there, bit for bit.
"""

import json
import os
import shutil
from pathlib import Path

from npgpt.core.parameters import Parameters
from npgpt.data.tokenizer import write_tokenizer
from npgpt.errors import FileError
from npgpt.files import check_size, header, opened, read_header, read_into, written
from npgpt.formats.llmc import read_checkpoint, write_checkpoint

MAGIC = 20261122
PARTIAL = ".partial"
CHECKPOINTS = "checkpoints"


def checkpoint_folder(run, step):
    """The folder of a step's checkpoint, in the folder of its run."""
    return Path(run) / CHECKPOINTS / f"step_{step:08d}"


def checkpoint_steps(run):
    """The steps of which a run's folder has a checkpoint, in order."""
    names = (path.name for path in (Path(run) / CHECKPOINTS).glob("step_*"))
    return sorted(int(name[5:]) for name in names if name[5:].isdecimal())


def best_step(run):
    """The step whose checkpoint has the lowest validation loss; the last one where none has."""
    steps, losses = checkpoint_steps(run), {}
    for step in steps:
        state = read_state(checkpoint_folder(run, step))
        if state["val_loss"] is not None:
            losses[step] = state["val_loss"]
    return min(losses, key=losses.get) if losses else steps[-1] if steps else None


def save(folder, params, tokenizer, state):
    """Write a checkpoint to the folder: aside, synced, then renamed.

    tokenizer is a description or None. Of the state, a dict, Parameters go to state.bin in their
    order, everything else, which JSON can hold, to state.json.
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
        write_moments(partial / "state.bin", moments)
        with written(partial / "state.json") as file:
            file.write(json.dumps(rest, indent=1).encode())
        sync(partial)
        os.rename(partial, folder)
        sync(folder.parent)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # it has its name by now, or there is no room


def sync(folder):
    """Have the names in a folder on the disk, where the system lets a folder be opened."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(folder):
    """Remove a checkpoint; one that is half removed is not taken for a whole one."""
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        os.rename(folder, partial)
    except OSError as error:
        raise FileError(f"{folder}: cannot be removed: {error.strerror}") from error
    shutil.rmtree(partial, ignore_errors=True)


def load(folder, moments):
    """Read a checkpoint -> Parameters, state (a dict), of which moments are Parameters."""
    params, state = read_checkpoint(folder / "model.bin"), read_state(folder)
    read = read_moments(folder / "state.bin", params.config, len(moments))
    return params, {**state, **dict(zip(moments, read, strict=True))}


def read_state(folder):
    """Read what a checkpoint says of its run -> a dict with "step", "updates", "val_loss", ..."""
    path = folder / "state.json"
    with opened(path) as (file, _):
        try:
            state = json.load(file)
            numbers = state["step"], state["updates"], state["val_loss"] or 0
            if not all(isinstance(number, (int, float)) for number in numbers):
                raise ValueError("step, updates and val_loss must be numbers")
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path}: the state is damaged: {error}") from error
    return state


def write_moments(path, moments):
    """Write an optimizer's moments, a list of Parameters."""
    size = moments[0].flat.size
    with written(path) as file:
        file.write(header(MAGIC, 1, size & 0x7FFFFFFF, size >> 31))
        for each in moments:
            file.write(each.flat.astype("<f4", copy=False))


def read_moments(path, config, count):
    """Read so many moments of a model of this config -> a list of Parameters."""
    with opened(path) as (file, size):
        _, version, low, high = read_header(file, size, path, "training state", MAGIC, used=4)
        if version != 1:
            raise FileError(f"{path}: a training state of version {version}, but 1 is known")
        first = Parameters(config)
        if low + (high << 31) != first.flat.size:
            raise FileError(
                f"{path}: the moments of {low + (high << 31)} parameters, but the model beside"
                f" them has {first.flat.size}"
            )
        check_size(path, size, 1024 + 4 * count * first.flat.size, "a state of this header")
        moments = [first, *(Parameters(config) for _ in range(count - 1))]
        for each in moments:
            read_into(file, each.flat, path)
    return moments

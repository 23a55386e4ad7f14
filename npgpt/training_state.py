"""A training run's checkpoint: a folder that is complete or absent.

`model.bin` has the weights (llm.c's version 3), `state.bin` AdamW's two moments (a header of 256
int32, magic 20261122, version 1, then both as float32), `state.json` everything else that a run
needs to go on from there, bit for bit.
"""

import json
import os
import shutil

import numpy as np

from npgpt.checkpoint import read_checkpoint, write_checkpoint
from npgpt.errors import FileError
from npgpt.files import check_size, header, opened, read_header, read_into, written
from npgpt.parameters import Parameters
from npgpt.tokenizer import write_tokenizer

MAGIC = 20261122
PARTIAL = ".partial"


def save(folder, model, state):
    """Write a checkpoint to the folder: aside, synced, then renamed. state is a JSON-able dict."""
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_checkpoint(partial / "model.bin", model.params)
        if model.tokenizer is not None:
            write_tokenizer(partial / "model.bin", model.tokenizer.description)
        write_moments(partial / "state.bin", model)
        with written(partial / "state.json") as file:
            file.write(json.dumps({**state, "updates": model.step}, indent=1).encode())
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


def load(folder):
    """Read a checkpoint -> Parameters, m, v (both Parameters), state (a dict)."""
    params = read_checkpoint(folder / "model.bin")
    m, v = read_moments(folder / "state.bin", params.config)
    return params, m, v, read_state(folder)


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


def write_moments(path, model):
    """Write AdamW's moments; before the first update they are zeros."""
    size = model.params.flat.size
    with written(path) as file:
        file.write(header(MAGIC, 1, size & 0x7FFFFFFF, size >> 31))
        for moments in (model.m, model.v):
            flat = np.zeros(size, "<f4") if moments is None else moments.flat
            file.write(flat.astype("<f4", copy=False))


def read_moments(path, config):
    """Read the moments of a model of this config -> m, v, both Parameters."""
    with opened(path) as (file, size):
        _, version, low, high = read_header(file, size, path, "training state", MAGIC, used=4)
        if version != 1:
            raise FileError(f"{path}: a training state of version {version}, but 1 is known")
        m = Parameters(config)
        if low + (high << 31) != m.flat.size:
            raise FileError(
                f"{path}: the moments of {low + (high << 31)} parameters, but the model beside"
                f" them has {m.flat.size}"
            )
        check_size(path, size, 1024 + 8 * m.flat.size, "a state of this header")
        v = Parameters(config)
        for moments in (m, v):
            read_into(file, moments.flat, path)
    return m, v

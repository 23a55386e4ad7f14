"""A training run's checkpoints: one folder each, written atomically.

`model.bin` has the weights (llm.c's version 3). `state.bin` has the moments: a header of 256 int32
(magic 20261122, version 1, the parameter count's low 31 bits, its high bits), then each as float32.
`state.json` has everything else that an exact resumption needs, and the CRC-32 of both files, which
is verified before a run is resumed.
"""

import json
import math
import os
import shutil
import zlib
from pathlib import Path

import numpy as np

from npgpt.core.config import is_integer
from npgpt.core.parameters import Parameters, count_parameters
from npgpt.data.descriptions import write_tokenizer
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
    read_json,
)
from npgpt.formats.llmc import read_checkpoint, write_checkpoint

MAGIC = 20261122
CHECKPOINTS = "checkpoints"
CHECKSUMS = "crc32"  # their key in state.json
CHECKED_FILES = "model.bin", "state.bin"
CHUNK = 1 << 20  # bytes


def checkpoint_folder(run, step):
    """The folder of a step's checkpoint in the run's folder."""
    return Path(run) / CHECKPOINTS / f"step_{step:08d}"


def checkpoint_steps(run):
    """The steps for which a run's folder has a checkpoint, ascending."""
    names = (path.name for path in (Path(run) / CHECKPOINTS).glob("step_*"))
    return sorted(int(name[5:]) for name in names if name[5:].isdecimal())


def best_step(run):
    """The step with the lowest validation loss, else the last step; None without checkpoints.

    A checkpoint whose state is damaged does not count, unless all are.
    """
    steps, losses, problem = [], {}, None
    for step in checkpoint_steps(run):
        try:
            state = read_state(checkpoint_folder(run, step))
        except FileError as error:
            problem = error
            continue
        steps.append(step)
        if state["val_loss"] is not None:
            losses[step] = state["val_loss"]
    if losses:
        return min(losses, key=losses.get)
    if not steps and problem is not None:
        raise problem
    return steps[-1] if steps else None


def is_readable(folder):
    """Whether a checkpoint's state can be read; if not, only its user knows what it is worth."""
    try:
        read_state(folder)
    except FileError:
        return False
    return True


def save_checkpoint(folder, params, tokenizer, state):
    """Write a checkpoint atomically: to a .partial folder, synced, then renamed.

    tokenizer is a description or None. The moments in the dict `state` go to state.bin in order,
    all its other values, which must be JSON-serializable, to state.json.
    """
    moments = moments_of(state)
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_checkpoint(partial / "model.bin", params)
        if tokenizer is not None:
            write_tokenizer(partial / "model.bin", tokenizer)
        write_moments(partial / "state.bin", params.config, moments)
        write_state(partial, {**state, CHECKSUMS: file_checksums(partial)})
        sync(partial)
        os.rename(partial, folder)
        sync(folder.parent)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # already renamed, or the write failed


def update_checkpoint(folder, state):
    """Replace state.json in a checkpoint of the same step, atomically."""
    written = read_state(folder)
    if written["val_loss"] != state["val_loss"]:
        write_state(folder, {**state, CHECKSUMS: written.get(CHECKSUMS)})


def file_checksums(folder):
    """File name -> CRC-32, 8 hexadecimal digits, of a checkpoint's two binary files."""
    checksums = {}
    for name in CHECKED_FILES:
        value = 0
        with open_for_reading(folder / name) as (file, _):
            while chunk := file.read(CHUNK):
                value = zlib.crc32(chunk, value)
        checksums[name] = f"{value:08x}"
    return checksums


def verify_checkpoint(folder, state):
    """Raise FileError where a file is not as it was written; those of 0.1.0 have no checksums."""
    expected = state.get(CHECKSUMS)
    for name, found in file_checksums(folder).items() if expected is not None else ():
        if found != expected.get(name):
            raise FileError(
                f"{folder / name}: damaged: its CRC-32 is {found}, not {expected.get(name)} as it"
                " was written"
            )


def way_back(folder):
    """What to do where a checkpoint is damaged, in words."""
    earlier = [
        path for path in sorted(folder.parent.glob("step_*[0-9]")) if path.name < folder.name
    ]
    if not earlier:
        return "there is no earlier checkpoint"
    return f"remove {folder} to continue from {earlier[-1].name}"


def moments_of(state):
    """What a state has in numbers as many as parameters: Parameters, or what has pieces as they."""
    return [value for value in state.values() if hasattr(value, "pieces")]


def write_state(folder, state):
    """Write state.json: all of the dict `state` but for its moments."""
    rest = {key: value for key, value in state.items() if not hasattr(value, "pieces")}
    with atomic_write(folder / "state.json") as file:
        file.write(json.dumps(rest, indent=1).encode())


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


def load_checkpoint(folder, moment_names, mapped=False):
    """Read a checkpoint -> Parameters, state; state[name] is Parameters for moment_names.

    mapped: the moments are not read but mapped into memory, and cannot be changed. Raises FileError
    where anything in it is damaged, with the earlier checkpoint's name.
    """
    try:
        params, state = read_checkpoint(folder / "model.bin"), read_state(folder)
        read = read_moments(folder / "state.bin", params.config, len(moment_names), mapped)
        verify_checkpoint(folder, state)
    except FileError as error:
        raise FileError(f"{error}; {way_back(folder)}") from error
    return params, {**state, **dict(zip(moment_names, read, strict=True))}


def read_state(folder):
    """Read state.json -> a dict with "step", "val_loss", ...; FileError where no run has such."""
    path = folder / "state.json"
    state = read_json(path)
    try:
        step, val_loss = state["step"], state["val_loss"]
    except KeyError as error:
        raise FileError(f"{path}: the state is damaged: it has no {error}") from error
    if not is_integer(step) or not 0 < step < 2**53:
        raise FileError(f"{path}: the state is damaged: step must be an integer, not {step!r:.50}")
    if val_loss is not None and not (isinstance(val_loss, float) and math.isfinite(val_loss)):
        raise FileError(
            f"{path}: the state is damaged: val_loss must be a number or null, not {val_loss!r:.50}"
        )
    checksums = state.get(CHECKSUMS)
    if checksums is not None and not (
        isinstance(checksums, dict) and checksums.keys() == set(CHECKED_FILES)
    ):
        raise FileError(
            f"{path}: the state is damaged: {CHECKSUMS} must be of {' and '.join(CHECKED_FILES)},"
            f" not {checksums!r:.50}"
        )
    return state


def write_moments(path, config, moments):
    """Write an optimizer's moments, as moments_of returns them, of a model of this config."""
    size = count_parameters(config)
    with atomic_write(path) as file:
        file.write(pack_header(MAGIC, 1, size & 0x7FFFFFFF, size >> 31))
        for moment in moments:
            for piece in moment.pieces():
                file.write(piece.astype("<f4", copy=False))


def read_moments(path, config, count, mapped=False):
    """Read `count` moments of a model of this config -> a list of Parameters.

    mapped: map them into memory instead; they cannot be changed.
    """
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
        if mapped:
            flats = np.memmap(path, "<f4", "r", HEADER_BYTES, (count, n_params))
            return [Parameters(config, flat) for flat in flats]
        moments = [Parameters(config) for _ in range(count)]
        for moment in moments:
            read_into(file, moment.flat, path)
    return moments

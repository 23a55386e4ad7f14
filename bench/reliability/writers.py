"""Every writer of files that matter, each replacing an old file by a new one."""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.reliability.readers import MOMENTS, params
from npgpt.data.descriptions import description_file, read_tokenizer
from npgpt.data.spool import write_stream
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.formats.debug_state import DebugState, read_debug_state, write_debug_state
from npgpt.formats.huggingface import write_huggingface
from npgpt.formats.models import load_model
from npgpt.formats.registry import write_model
from npgpt.formats.run_checkpoint import checkpoint_steps, load_checkpoint, save_checkpoint
from npgpt.tracing.files import TraceFile, open_trace_writer
from npgpt.training.settings import Settings, make_settings, read_toml

CHARS = {"name": "chars", "characters": "abcd"}


class Writer(NamedTuple):
    """write(folder, value) writes it; read(folder) -> the value, of the file and its companions.

    value is 1, the old one, or 2, the new one.
    """

    write: Callable[[Path, int], Any]
    read: Callable[[Path], int]


def same(found, described):
    """The value that two files hold, or an AssertionError where they are not of one write."""
    assert found == described, (
        f"weights or tokens of write {found}, but the tokenizer of {described}"
    )
    return found


def tokenizer_of(value):
    """Another tokenizer for each value."""
    return CHARS if value == 2 else {**CHARS, "characters": "dcba"}


def value_of(description):
    return 2 if description == CHARS else 1


def read_model(path):
    loaded, description = load_model(path)
    values = np.unique(loaded.flat)
    assert len(values) == 1, f"weights of {values}"
    return same(int(values[0]), value_of(description))


def write_token_file(folder, value):
    path = folder / "t.bin"
    write_tokens(path, [value] * 9, companions=description_file(path, tokenizer_of(value)))


def read_token_file(folder):
    tokens = open_tokens(folder / "t.bin")
    return same(int(tokens[0:1][0]), value_of(tokens.tokenizer_description))


def write_text(folder, value):
    letters = "abcd" if value == 1 else "efgh"
    pieces = [(letters * 5, True), (letters, True)]
    write_stream(pieces, "t", "chars", folder, 0.5, "llmc", "the text")


def read_text(folder):
    """Both parts, which are files of their own: each must be whole, with its own tokenizer."""
    values = []
    for part in ("val", "train"):
        tokens = open_tokens(folder / f"t_{part}.bin")
        letters = tokens.tokenizer_description["characters"]
        assert set(tokens[0 : len(tokens)].tolist()) == {0, 1, 2, 3, 4}
        values.append({"abcd": 1, "efgh": 2}[letters])
    return min(values)  # the part for validation is written first


def write_state(folder, value):
    x = np.full((1, 3), value, "<i4")
    state = DebugState(x, x, np.full((1, 3, 5), value, "<f4"), np.float32(value), params(value))
    write_debug_state(folder / "state.bin", state)


def read_state(folder):
    state = read_debug_state(folder / "state.bin", params())
    (value,) = {int(part.flat[0]) for part in (state.x, state.y, state.logits, state.grads.flat)}
    return value


def write_checkpoint(folder, value):
    """A checkpoint of the step `value`, beside those of other steps."""
    target = folder / "checkpoints" / f"step_{value:08d}"
    if os.path.exists(target):
        return
    state = {"step": value, "val_loss": None, **{name: params(value) for name in MOMENTS}}
    save_checkpoint(target, params(value), tokenizer_of(value), state)


def read_checkpoint(folder):
    """The newest checkpoint must be whole, whatever its step is."""
    step = checkpoint_steps(folder)[-1]
    place = folder / "checkpoints" / f"step_{step:08d}"
    loaded, state = load_checkpoint(place, MOMENTS)
    values = {int(part.flat[0]) for part in (loaded, *(state[name] for name in MOMENTS))}
    assert values == {step} == {state["step"]}, f"checkpoint {step} holds {values}"
    return same(step, value_of(read_tokenizer(place / "model.bin")))


def write_settings(folder, value):
    from npgpt.training.run import Run

    settings = Settings(run=str(folder), train="a.bin", seed=value)
    run = Run(settings)
    try:
        run.start_from(0)
    finally:
        run.close()


def write_trace(folder, value, name):
    with open_trace_writer(folder / name, {"loss": ("<f8", (9,))}) as write:
        write("loss", np.full(9, value))


def read_trace(folder, name):
    (value,) = {*TraceFile(folder / name).read("loss").tolist()}
    return int(value)


WRITERS = {
    "model (llm.c) and its tokenizer": Writer(
        lambda folder, value: write_model(folder / "m.bin", params(value), tokenizer_of(value)),
        lambda folder: read_model(folder / "m.bin"),
    ),
    "tokens and their tokenizer": Writer(write_token_file, read_token_file),
    "prepare text": Writer(write_text, read_text),
    "debug state": Writer(write_state, read_state),
    "checkpoint of a run": Writer(write_checkpoint, read_checkpoint),
    "settings of a run": Writer(
        write_settings, lambda folder: make_settings(read_toml(folder / "settings.toml")).seed
    ),
    **{
        f"trace ({name})": Writer(partial(write_trace, name=name), partial(read_trace, name=name))
        for name in ("t.safetensors", "t.npz")
    },
}
if find_spec("safetensors"):
    WRITERS["model (Hugging Face) and its tokenizer"] = Writer(
        lambda folder, value: write_huggingface(folder / "m", params(value), tokenizer_of(value)),
        lambda folder: read_model(folder / "m"),
    )

"""llm.c's debug states: one batch with the logits, loss and gradients it must give.

The magic is 20240327; header words 2 and 3 are B and T. Then x and y, int32 (B, T), logits, float32
(B, T, V), the loss, float32, and the sixteen gradients, float32, in the model's order. In version 2
the gradient of wte is padded as the model's wte is, in version 1 not. Everything is little-endian.
"""

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npgpt.core.parameters import Parameters
from npgpt.errors import ArgumentError, FileError
from npgpt.files import (
    HEADER_BYTES,
    atomic_write,
    check_size,
    open_for_reading,
    pack_header,
    read_header,
    read_into,
)
from npgpt.formats.llmc import PADDED_TO, in_file_order, padding_rows

MAGIC = 20240327
VERSIONS = (1, 2)


@dataclass
class DebugState:
    """A batch, x and y (B, T), and its results: logits (B, T, V), loss and grads (Parameters)."""

    x: NDArray[np.integer]
    y: NDArray[np.integer]
    logits: NDArray[np.floating]
    loss: np.float32
    grads: Parameters


def read_debug_state(path: str | os.PathLike[str], params: Parameters) -> DebugState:
    """Read the debug state that goes with the model whose Parameters are given.

    Raises FileError where the file is not a debug state, is damaged, or belongs to a model of
    another size. Nothing of its size is allocated before its header has been checked.
    """
    config = params.config
    with open_for_reading(path) as (file, size):
        _, version, B, T = read_header(file, size, path, "GPT-2 debug state", MAGIC, n_used=4)
        if version not in VERSIONS:
            raise FileError(
                f"{path}: a GPT-2 debug state of version {version}, but 1 and 2 are known"
            )
        if B < 1 or not 1 <= T <= config.block_size:
            raise FileError(
                f"{path}: the header is damaged, or it is another model's state: B={B}, T={T},"
                f" with a block_size of {config.block_size}"
            )
        rows = -config.vocab_size % PADDED_TO if version == 2 else 0
        count = params.flat.size + rows * config.n_embd
        expected = HEADER_BYTES + 4 * (2 * B * T + B * T * config.vocab_size + 1 + count)
        check_size(path, size, expected, f"a state of B={B}, T={T} that goes with this model")
        x, y = np.empty((2, B, T), "<i4")
        logits = np.empty((B, T, config.vocab_size), "<f4")
        loss = np.empty(1, "<f4")
        padding = None if version == 1 else np.empty((rows, config.n_embd), "<f4")
        grads = Parameters(config, dtype="<f4", wte_padding=padding)
        for part in (x, y, logits, loss, *in_file_order(grads, padding)):
            read_into(file, part, path)
    for name, ids, lowest in (("x", x, 0), ("y", y, -1)):
        if ids.min() < lowest or ids.max() >= config.vocab_size:
            raise FileError(
                f"{path}: damaged, or another model's state: {name} has tokens from {ids.min()} to"
                f" {ids.max()}, this model's run from {lowest} to {config.vocab_size - 1}"
            )
    return DebugState(x, y, logits, loss[0], grads)


def write_debug_state(path: str | os.PathLike[str], state: DebugState, version: int = 2) -> None:
    """Write a DebugState; the file under this name is what it was if that fails."""
    if version not in VERSIONS:
        raise ArgumentError(f"version must be one of 1 and 2, not {version!r}")
    padding = padding_rows(state.grads) if version == 2 else None
    with atomic_write(path) as file:
        file.write(pack_header(MAGIC, version, *state.x.shape))
        for part in (state.x, state.y):
            file.write(np.ascontiguousarray(part, "<i4"))
        for part in (state.logits, state.loss, *in_file_order(state.grads, padding)):
            file.write(np.ascontiguousarray(part, "<f4"))

"""llm.c's model files: a header of 256 int32, then the sixteen tensors (magic 20240326).

Version 1 is float32, version 3 float32 with wte padded to a multiple of 128 rows, version 5
bfloat16, padded. Header words 2 to 7: block_size, vocab_size, n_layer, n_head, n_embd and, where
padded, padded_vocab_size. Everything is little-endian.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters, count_parameters
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

MAGIC = 20240326
VERSIONS = {1: "float32", 3: "float32, padded", 5: "bfloat16, padded"}
DEFAULT_VERSION = 3
PADDED_TO = 128
CHUNK = 1 << 20  # elements
PADDING = "wte's padding"  # in messages


def read_checkpoint(
    path: str | os.PathLike[str], make_params: Callable[[GPT2Config], Any] = Parameters
) -> Parameters:
    """Read a model file of version 1, 3 or 5 -> Parameters (float32) with their config.

    Or what make_params(config) returns: its `slots`, as those of Parameters, are filled. Raises
    FileError where the header makes no sense, the size is not the header's, or a weight is not
    finite. Nothing of the model's size is allocated before its header has been checked.
    """
    with open_for_reading(path) as (file, size):
        _, version, *sizes = read_header(file, size, path, "GPT-2 checkpoint", MAGIC, n_used=8)
        if version not in VERSIONS:
            raise FileError(
                f"{path}: a GPT-2 checkpoint of version {version}, but 1, 3 and 5 are known"
            )
        try:
            config = GPT2Config(*sizes[:5])
        except ArgumentError as error:
            raise FileError(f"{path}: the header is damaged: {error}") from error
        padding = 0 if version == 1 else -config.vocab_size % PADDED_TO
        if version == 1 and sizes[5] != 0:
            raise FileError(
                f"{path}: the header is damaged: word 7 must be 0 in version 1, not {sizes[5]}"
            )
        if version != 1 and sizes[5] != config.vocab_size + padding:
            raise FileError(
                f"{path}: the header is damaged: padded_vocab_size is {sizes[5]}, but vocab_size"
                f" {config.vocab_size} padded to a multiple of {PADDED_TO} is"
                f" {config.vocab_size + padding}"
            )
        count = count_parameters(config) + padding * config.n_embd
        expected = HEADER_BYTES + count * (2 if version == 5 else 4)
        check_size(path, size, expected, f"a version {version} model of this header")
        read, params = read_bfloat16 if version == 5 else read_into, make_params(config)
        for name, layer, slot in params.slots():
            read(file, slot, path)
            check_tensor(path, name, slot, layer)
            if name == "wte" and version != 1:
                params.wte_padding = np.empty((padding, config.n_embd), "<f4")
                read(file, params.wte_padding, path)
                check_tensor(path, PADDING, params.wte_padding)
    return params


def write_checkpoint(
    path: str | os.PathLike[str],
    params: Parameters,
    version: int = DEFAULT_VERSION,
    companions: Mapping[Path, bytes | None] = MappingProxyType({}),
) -> None:
    """Write Parameters as a model file; bfloat16 rounds to the nearest, ties to even.

    companions are replaced together with it, as by `npgpt.files.atomic_write`. The padding that a
    file brought is written back as it was; otherwise wte is padded with zeros to a multiple of 128
    rows. Raises FileError where a weight is not finite or the file cannot be written; the file
    under this name is then what it was.
    """
    if version not in VERSIONS:
        raise ArgumentError(f"version must be one of 1, 3 and 5, not {version!r}")
    check_finite(params, path)
    c = params.config
    words = [MAGIC, version, c.block_size, c.vocab_size, c.n_layer, c.n_head, c.n_embd]
    padding = padding_rows(params) if version != 1 else None
    if padding is not None:
        words.append(c.vocab_size + len(padding))
    with atomic_write(path, companions) as file:
        file.write(pack_header(*words))
        for part in in_file_order(params, padding):
            if version == 5:
                write_bfloat16(file, part, path)
            else:
                file.write(np.ascontiguousarray(part, "<f4"))


def padding_rows(params):
    """The rows by which a padded file follows wte: those that were read, or as many zeros."""
    if params.wte_padding is not None:
        return params.wte_padding
    V, C = params.wte.shape
    return np.zeros((-V % PADDED_TO, C), "<f4")


def in_file_order(params, padding):
    """The flat buffer in one piece, or cut where the padding stands, if there is any: after wte."""
    if padding is None:
        return [params.flat]
    return [params.flat[: params.wte.size], padding, params.flat[params.wte.size :]]


def read_bfloat16(file, out, path):
    """Fill the contiguous float32 array out with bfloat16 numbers: the upper halves of its own."""
    bits = out.reshape(-1).view("<u4")
    for i in range(0, out.size, CHUNK):
        piece = np.empty(len(bits[i : i + CHUNK]), "<u2")
        read_into(file, piece, path)
        np.left_shift(piece, 16, out=bits[i : i + CHUNK], dtype="<u4")


def write_bfloat16(file, part, path):
    """Write float32 numbers as bfloat16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(part, "<f4").reshape(-1).view("<u4")
    for i in range(0, part.size, CHUNK):
        piece = bits[i : i + CHUNK]
        rounded = (piece + 0x7FFF + (piece >> 16 & 1)) >> 16
        if (rounded & 0x7FFF == 0x7F80).any():
            raise FileError(f"{path}: not written: a weight is beyond bfloat16's 3.4e38")
        file.write(rounded.astype("<u2"))


def check_finite(params, path):
    """Raise FileError, naming the first, if a weight is infinite or not a number."""
    for name, tensor in params.items():
        check_tensor(path, name, tensor)
    if params.wte_padding is not None:
        check_tensor(path, PADDING, params.wte_padding)


def check_tensor(path, name, tensor, layer=...):
    """As check_finite, of a tensor or of a layer's slice of it."""
    flat = tensor.reshape(-1)
    for i in range(0, flat.size, CHUNK):  # in pieces: no second copy of the model
        with np.errstate(over="ignore"):  # a float64 that no float32 can hold is infinite
            finite = np.isfinite(flat[i : i + CHUNK].astype("<f4", copy=False))
        if not finite.all():
            at = np.unravel_index(i + int(finite.argmin()), tensor.shape)
            where = ", ".join(map(str, at if layer is ... else (layer, *at)))
            raise FileError(f"{path}: the weights are damaged: {name}[{where}] is {tensor[at]}")

"""The formats of models that can be read and written: loading and conversion go by this table.

To add one is an entry here, with functions from a module of its own.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from npgpt.core.parameters import Parameters
from npgpt.errors import ArgumentError
from npgpt.formats.huggingface import (
    CONFIG,
    MODEL,
    put_tokenizer,
    read_huggingface,
    write_huggingface,
)
from npgpt.formats.llmc import DEFAULT_VERSION, VERSIONS, read_checkpoint, write_checkpoint


class Format(NamedTuple):
    """A format of models; a model's path is a file or a folder.

    recognise(path) says whether what is there is of this format, suits(path) whether something to
    be written there is meant to be. read(path) gives Parameters; write(path, params, tokenizer,
    version) writes them with the description of their tokenizer, or None. files(path) are those
    that write makes, that of the weights first; beside(path) is the path whose description of a
    tokenizer (`read_tokenizer`) is the model's. versions: {number: what it is}, where there are
    several.
    """

    help: str
    recognise: Callable[[Path], bool]
    suits: Callable[[Path], bool]
    read: Callable[[Path], Parameters]
    write: Callable[[Path, Parameters, dict | None, int], None]
    files: Callable[[Path], list[Path]]
    beside: Callable[[Path], Path]
    versions: dict[int, str] = {}


def write_llmc(path, params, tokenizer, version):
    write_checkpoint(path, params, version)
    put_tokenizer(path, tokenizer)


# The first that recognises a path, or that a path suits, is the one that it is of.
FORMATS = {
    "Hugging Face": Format(
        "a folder with config.json and model.safetensors, float32",
        recognise=lambda path: os.path.exists(path / CONFIG) or path.suffix == ".safetensors",
        suits=lambda path: path.suffix != ".bin",
        read=read_huggingface,
        write=lambda path, params, tokenizer, _: write_huggingface(path, params, tokenizer),
        files=lambda path: [path / MODEL, path / CONFIG],
        beside=lambda path: path / "model" if os.path.isdir(path) else path.with_suffix(""),
    ),
    "llm.c": Format(
        "a file that ends in .bin",
        recognise=lambda path: os.path.isfile(path),
        suits=lambda path: path.suffix == ".bin",
        read=read_checkpoint,
        write=write_llmc,
        files=lambda path: [path],
        beside=lambda path: path,
        versions=VERSIONS,
    ),
}


def format_of(path):
    """The name of the format of what is at path, None where it is of none."""
    return next((name for name, f in FORMATS.items() if f.recognise(path)), None)


def format_for(path):
    """The name of the format that a model to be written at path is to have, or ArgumentError."""
    if path.suffix == ".safetensors":
        raise ArgumentError(f"TARGET must be a .bin file or a folder, not {path}")
    return next(name for name, f in FORMATS.items() if f.suits(path))


def write_model(path, params, tokenizer=None, version=None):
    """Write Parameters with their tokenizer's description -> the name of the format.

    The format is the one that the path suits; version is for llm.c's. Raises ArgumentError where
    the format has no such version, and FileError where it cannot be written.
    """
    name = format_for(path)
    versions = FORMATS[name].versions
    if version is not None and version not in versions:
        raise ArgumentError(f"{path}: {name}'s format has no version {version}")
    FORMATS[name].write(path, params, tokenizer, version or DEFAULT_VERSION)
    return name

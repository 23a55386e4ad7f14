"""The registry of model formats that can be read and written.

To add one, write a module for it and add an entry at the top of MODEL_FORMATS: of the two here,
Hugging Face takes any path to write to that does not end in .bin, and llm.c any file to read.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from npgpt.core.parameters import Parameters
from npgpt.data.descriptions import description_file, read_tokenizer
from npgpt.errors import ArgumentError
from npgpt.formats.huggingface import (
    CONFIG,
    MODEL,
    read_huggingface,
    read_huggingface_tokenizer,
    write_huggingface,
)
from npgpt.formats.llmc import DEFAULT_VERSION, VERSIONS, read_checkpoint, write_checkpoint


class Format(NamedTuple):
    """A format of models; a model's path is a file or a folder.

    recognise(path): whether path holds this format. is_target(path): whether a path to write to is
    meant for it. read(path, make_params) -> what make_params(config) returns, filled. write(path,
    params, tokenizer, version): tokenizer is a description or None, version None for the default.
    files(path): what write creates, the weights first. read_tokenizer(path): the description of its
    tokenizer, or None. versions: {number: description}, if it has several.
    """

    help: str
    recognise: Callable[[Path], bool]
    is_target: Callable[[Path], bool]
    read: Callable[[Path, Callable], Any]
    write: Callable[[Path, Parameters, dict | None, int | None], None]
    files: Callable[[Path], list[Path]]
    read_tokenizer: Callable[[Path], dict | None]
    versions: dict[int, str] = {}


def write_llmc(path, params, tokenizer, version):
    """Write an llm.c file with its tokenizer's description beside it."""
    write_checkpoint(path, params, version or DEFAULT_VERSION, description_file(path, tokenizer))


# In order of precedence: the first entry that matches a path wins.
MODEL_FORMATS = {
    "Hugging Face": Format(
        "a Hugging Face folder (config.json and model.safetensors) or its .safetensors file",
        recognise=lambda path: os.path.exists(path / CONFIG) or path.suffix == ".safetensors",
        is_target=lambda path: path.suffix != ".bin",
        read=read_huggingface,
        write=lambda path, params, tokenizer, _: write_huggingface(path, params, tokenizer),
        files=lambda path: [path / MODEL, path / CONFIG],
        read_tokenizer=read_huggingface_tokenizer,
    ),
    "llm.c": Format(
        "an llm.c .bin file",
        recognise=lambda path: os.path.isfile(path),
        is_target=lambda path: path.suffix == ".bin",
        read=read_checkpoint,
        write=write_llmc,
        files=lambda path: [path],
        read_tokenizer=read_tokenizer,
        versions=VERSIONS,
    ),
}


MODEL_FORMATS_HELP = ", ".join(format.help for format in MODEL_FORMATS.values())


def detect_format(path):
    """The name of the format of the model at path, or None."""
    return next((name for name, f in MODEL_FORMATS.items() if f.recognise(path)), None)


def target_format(path):
    """The format to write path in, by its suffix; raises ArgumentError for .safetensors."""
    if path.suffix == ".safetensors":
        raise ArgumentError(f"{path}: must end in .bin or be a folder")
    return next(name for name, f in MODEL_FORMATS.items() if f.is_target(path))


def write_model(path, params, tokenizer=None, version=None):
    """Write Parameters and their tokenizer's description, if any -> the name of the format.

    The path decides the format; version is that of llm.c files (None: the default). Raises
    ArgumentError where the format has no such version, and FileError where it cannot be written.
    """
    name = target_format(path)
    versions = MODEL_FORMATS[name].versions
    if version is not None and version not in versions:
        raise ArgumentError(f"{path}: {name}'s format has no version {version}")
    MODEL_FORMATS[name].write(path, params, tokenizer, version)
    return name

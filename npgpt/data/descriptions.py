"""Descriptions of tokenizers: a file FOO.bin of tokens or of a model may have FOO.tokenizer.json.

It says which tokenizer the file goes with: {"name": "gpt2"}, or more for one that has content.
"""

import json
import os
from pathlib import Path

from npgpt.data.json_tokenizer import JSONTokenizer
from npgpt.data.tokenizer import CharsTokenizer, get_tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import atomic_write, read_json


def tokenizer_from_description(description):
    """The tokenizer of a description: {"name": "gpt2"}, {"name": "chars", "characters": "abc"}."""
    match description:
        case {"name": "chars", "characters": characters, **rest} if not rest:
            return CharsTokenizer(characters)
        case {"name": "json", "eot": eot, "content": content, **rest} if not rest:
            return JSONTokenizer(content, eot)
        case {"name": "gpt2" | "bytes" as name, **rest} if not rest:
            return get_tokenizer(name)
    shown = repr(description)
    shown = shown if len(shown) <= 100 else f"{shown[:100]} ..."
    raise ArgumentError(
        'a tokenizer\'s description must be {"name": "gpt2"}, {"name": "bytes"},'
        ' {"name": "chars", "characters": "..."} or {"name": "json", "eot": N, "content": ...},'
        f" not {shown}"
    )


def description_path(path):
    """The path of the tokenizer's description of the file at path: FOO.tokenizer.json."""
    return Path(f"{os.fspath(path).removesuffix('.bin')}.tokenizer.json")


def read_tokenizer(path):
    """The description beside the file at path, or None if there is none.

    Raises FileError if it is not a tokenizer's.
    """
    path = description_path(path)
    if not os.path.exists(path):
        return None
    description = read_json(path)
    try:
        tokenizer_from_description(description)
    except ArgumentError as error:
        raise FileError(f"{path}: not a tokenizer's description: {error}") from error
    return description


def write_tokenizer(path, description):
    """Write the description beside the file at path."""
    tokenizer_from_description(description)
    for name, content in description_file(path, description).items():
        with atomic_write(name) as file:
            file.write(content)


def description_file(path, description):
    """{its path: its content} of the description of the file at path, as companion of that file.

    The content is None, no file, where the description is.
    """
    if description is None:
        return {description_path(path): None}
    tokenizer_from_description(description)
    separators = (",", ":") if "content" in description else None
    content = json.dumps(description, ensure_ascii=False, separators=separators).encode() + b"\n"
    return {description_path(path): content}


def check_same_tokenizer(name, description, other_name, other):
    """Raise ArgumentError if both descriptions are known and differ."""
    if description is not None and other is not None and description != other:
        same_kind = description["name"] == other["name"]
        what = " of another content" if same_kind else ""
        if same_kind and description["name"] == "chars":
            what = " of other characters"
        raise ArgumentError(
            f"{name}: the tokenizer is {description['name']}, but {other_name} has"
            f" {other['name']}{what}"
        )

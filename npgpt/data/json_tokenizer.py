"""A byte-level BPE tokenizer by Hugging Face's tokenizer.json: as GPT-2's, with other tokens.

The package tokenizers encodes; decoding is a table of bytes.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from npgpt.core.config import is_integer
from npgpt.data.tokenizer import Tokenizer
from npgpt.errors import ArgumentError
from npgpt.wording import install_extra


class JSONTokenizer(Tokenizer):
    """The tokenizer of a tokenizer.json's content, a dict; eot is its end-of-text token.

    As in transformers, added tokens in a text become what they stand for, and it neither cuts nor
    pads. Raises ArgumentError
    where the content is not that of a byte-level BPE, and, on first use, where the package
    tokenizers is missing or refuses it.
    """

    name = "json"

    def __init__(self, content, eot):
        try:
            model, added = content["model"], content["added_tokens"]
            if model["type"] != "BPE" or not is_byte_level(content["decoder"]):
                raise ValueError("only byte-level BPE, as GPT-2's, can be read")
            self._token_bytes = {token["id"]: token["content"].encode() for token in added}
            self._token_bytes |= {i: from_letters(token) for token, i in model["vocab"].items()}
            json.dumps(content, ensure_ascii=False).encode()  # no half characters in any field
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ArgumentError(f"not a tokenizer.json of a byte-level BPE: {reason}") from error
        ids = self._token_bytes.keys()
        if not ids or not all(is_integer(i) and 0 <= i < 2**31 for i in ids):
            raise ArgumentError("the ids of a tokenizer.json must be integers of at least 0")
        self.vocab_size = max(ids) + 1
        if not is_integer(eot) or eot not in ids:
            raise ArgumentError(f"eot must be one of the tokenizer's tokens, not {eot!r:.50}")
        self.content, self.eot = content, eot

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-serializable dict, of which `tokenizer_from_description` makes this tokenizer."""
        return {"name": self.name, "eot": self.eot, "content": self.content}

    @cached_property
    def _encoder(self):
        try:
            import tokenizers
        except ImportError as error:
            raise ArgumentError(
                f"this model's tokenizer needs the package tokenizers: {install_extra('hf')}"
            ) from error
        try:
            model = {**self.content["model"], "dropout": None}
            content = {**self.content, "truncation": None, "padding": None, "model": model}
            return tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the package has no error of its own
            raise ArgumentError(f"the package tokenizers cannot read it: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Text -> a list of tokens."""
        try:
            return self._encoder.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:  # half a UTF-16 pair
            raise ArgumentError(f"the text has what is not a character: {error}") from error

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Tokens -> their bytes, which may end within a character; unused ids have none."""
        return b"".join(self._token_bytes.get(token, b"") for token in self._checked(tokens))


def is_byte_level(decoder):
    """Whether a tokenizer.json's decoder is ByteLevel, alone or in a sequence."""
    if decoder["type"] == "Sequence":
        return all(is_byte_level(each) for each in decoder["decoders"])
    return decoder["type"] == "ByteLevel"


def byte_letters():
    """The letter that stands for each byte in the files of byte-level BPE, as GPT-2 chose them.

    A printable byte of Latin-1 is its own letter; the others are those from U+0100 on, in order.
    Source: bytes_to_unicode in OpenAI's encoder.py.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (i for i in range(256) if i not in printable)
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + n) for n, byte in enumerate(others)}


LETTERS = byte_letters()
BYTES = {letter: byte for byte, letter in LETTERS.items()}


def from_letters(token):
    """A token as these files spell it -> its bytes; special tokens are spelt as text."""
    if all(letter in BYTES for letter in token):
        return bytes(BYTES[letter] for letter in token)
    return token.encode()


def to_letters(content):
    """Bytes -> the letters that these files spell them with."""
    return "".join(LETTERS[byte] for byte in content)

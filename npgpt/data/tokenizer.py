"""Text to tokens and back: GPT-2's byte pairs, through tiktoken, plain bytes, or characters."""

import re
import threading
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

from npgpt.errors import ArgumentError, FileError
from npgpt.wording import counted

END_OF_TEXT = "<|endoftext|>"
LONG_BLANK = 100_000  # characters; tiktoken fails on a million
# \s in tiktoken's regex
_BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# GPT-2's regex, written differently from tiktoken's. There a backtracking engine tries one kind of
# word after the other; here all kinds are one expression, for an engine that does not backtrack.
# The pieces are the same, in six tenths of the time.
PIECES = r"(?: ?\p{L}+| ?\p{N}+|'(?:[sdmt]|ll|ve|re)| ?[^\s\p{L}\p{N}]+)|\s++$|\s+(?!\S)|\s"
# GPT-2's regex makes one match of blanks: of all at the end of a text, of all but the last one
# before a word. So no token differs where a text is cut in front of and behind such a match. It is
# looked for only where blanks begin: from each of them on would take a time that grows as a square.
LONG_BLANKS = re.compile(
    rf"(?<![{_BLANK}])([{_BLANK}]{{{LONG_BLANK},}}(?=[{_BLANK}][^{_BLANK}]|\Z))"
)


class Tokenizer:
    """The base class: `name`, the number of tokens, and which one is end-of-text."""

    name: str
    vocab_size: int
    eot: int

    def encode(self, text: str) -> list[int]:
        """Text -> a list of tokens."""
        raise NotImplementedError

    def encode_pieces(self, pieces: Sequence[tuple[str, bool]]) -> np.ndarray:
        """Pieces of documents -> tokens int32 (N,), with end-of-text in front of each document.

        pieces: pairs of a text and whether a document begins there.
        """
        tokens = array("i")
        for text, begins in pieces:
            if begins:
                tokens.append(self.eot)
            tokens.extend(self.encode(text))
        return np.asarray(tokens)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Tokens -> their bytes, which may end within a character."""
        raise NotImplementedError

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-serializable dict, of which `tokenizer_from_description` makes this tokenizer."""
        return {"name": self.name}

    def decode(self, tokens: Iterable[int]) -> str:
        """Tokens -> text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")

    def _checked(self, tokens):
        tokens = [int(token) for token in tokens]
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                raise ArgumentError(
                    f"a token of the tokenizer {self.name} must be from 0 to"
                    f" {self.vocab_size - 1}, not {token}"
                )
        return tokens


class GPT2Tokenizer(Tokenizer):
    """GPT-2's 50,256 byte pairs and end-of-text; tiktoken downloads and caches their two files.

    They are loaded when first needed. Raises FileError then if they are neither in tiktoken's cache
    nor can be downloaded.
    """

    name = "gpt2"
    vocab_size = 50257
    eot = 50256

    @property
    def _encoding(self):
        try:
            with loading:
                return gpt2_encoding()
        except (OSError, ValueError) as error:  # no network, disk full, or wrong bytes
            raise FileError(
                "the gpt2 tokenizer's files cannot be downloaded"
                f" ({type(error).__name__}): take the tokenizer bytes or chars, which need none, or"
                " put OpenAI's vocab.bpe as"
                " 6d1cbeee0f20b3d9449abfede4726ed8212e3aee and encoder.json as"
                " 6c7ea1a7e38e3a7f062df639a5b80947f075ffe6 into a folder and name that folder in"
                " TIKTOKEN_CACHE_DIR"
            ) from error

    def encode(self, text: str) -> list[int]:
        """Text -> a list of tokens; what looks like a special token is text like any other."""
        encode = self._encoding.encode_ordinary
        if len(text) < LONG_BLANK:
            return encode(text)
        return [token for part in LONG_BLANKS.split(text) for token in encode(part)]

    def encode_pieces(self, pieces: Sequence[tuple[str, bool]]) -> np.ndarray:
        """As of any tokenizer, in one call of tiktoken, in which end-of-text is a special token."""
        text = "".join(END_OF_TEXT * begins + text for text, begins in pieces)
        if text.count(END_OF_TEXT) == sum(begins for _, begins in pieces):  # and none in a text
            special = {"allowed_special": {END_OF_TEXT}, "disallowed_special": ()}
            with suppress(ValueError):  # half a UTF-16 pair, or very many blanks: `encode` can
                return self._encoding.encode_to_numpy(text, **special).astype("<i4")
        return super().encode_pieces(pieces)

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Tokens -> their bytes, which may end within a character."""
        return self._encoding.decode_bytes(self._checked(tokens))


loading = threading.Lock()  # several threads would each load it, and one another's files


@cache
def gpt2_encoding():
    """GPT-2's Encoding of tiktoken, which splits text into PIECES."""
    from tiktoken import Encoding
    from tiktoken_ext.openai_public import gpt2

    return Encoding(**{**gpt2(), "pat_str": PIECES})


class BytesTokenizer(Tokenizer):
    """The 256 bytes of UTF-8 and end-of-text: nothing to download, every text can be encoded."""

    name = "bytes"
    vocab_size = 257
    eot = 256

    def encode(self, text: str) -> list[int]:
        """Text -> a list of tokens."""
        try:
            return list(text.encode("utf-8"))
        except UnicodeEncodeError as error:  # half a UTF-16 pair, or a byte that was not UTF-8
            raise ArgumentError(
                f"the text has {text[error.start]!r}, which is not a character"
            ) from error

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Tokens -> their bytes, which may end within a character; end-of-text is END_OF_TEXT."""
        end = END_OF_TEXT.encode()
        return b"".join(end if t == self.eot else bytes([t]) for t in self._checked(tokens))


class CharsTokenizer(Tokenizer):
    """A token for each of the given characters, in their order, and end-of-text."""

    name = "chars"

    def __init__(self, characters):
        if not isinstance(characters, str) or not characters:
            given = type(characters).__name__ if characters else "empty"
            raise ArgumentError(f"characters must be a text, not {given}")
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}
        for i, character in enumerate(characters):
            if self._ids[character] != i:
                raise ArgumentError(f"characters must differ, but {character!r} occurs twice")
            if "\ud800" <= character <= "\udfff":
                raise ArgumentError(f"characters must not be surrogates, like {character!r}")
        self.vocab_size = len(characters) + 1
        self.eot = len(characters)

    @property
    def description(self) -> dict[str, Any]:
        """A JSON-serializable dict, of which `tokenizer_from_description` makes this tokenizer."""
        return {"name": self.name, "characters": self.characters}

    def encode(self, text: str) -> list[int]:
        """Text -> a list of tokens; raises ArgumentError where a character is not among them."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ArgumentError(
                f"the text has {error.args[0]!r}, which is not among the tokenizer's"
                f" {counted(self.eot, 'character')}"
            ) from error

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Tokens -> the UTF-8 of their characters; end-of-text is END_OF_TEXT."""
        pieces = [*self.characters, END_OF_TEXT]
        return "".join(pieces[token] for token in self._checked(tokens)).encode("utf-8")


TOKENIZERS = {"gpt2": GPT2Tokenizer, "bytes": BytesTokenizer}


def get_tokenizer(name: str) -> Tokenizer:
    """The tokenizer named `gpt2` or `bytes`: encode, decode, vocab_size and eot.

    Raises ArgumentError for another name.
    """
    if name not in TOKENIZERS:
        raise ArgumentError(f"tokenizer must be one of {', '.join(TOKENIZERS)}, not {name!r}")
    return TOKENIZERS[name]()

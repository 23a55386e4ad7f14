"""Token files: writing them, and reading the part that is needed.

They are read by calls and not mapped into memory: where a file is cut while a run reads it, a call
fails with an error, but a mapping kills the process.
"""

import glob
import os
import zlib
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from npgpt.data.descriptions import read_tokenizer
from npgpt.data.nanogpt import read_meta
from npgpt.data.sniff import HEAD, what_it_is
from npgpt.errors import ArgumentError, FileError
from npgpt.files import (
    HEADER_BYTES,
    PARTIAL,
    atomic_write,
    check_path,
    check_size,
    open_for_reading,
    pack_header,
    read_header,
    read_into,
)
from npgpt.wording import counted

MAGIC = 20240520
TOKEN_FORMATS = {
    "llmc": "llm.c's current format: a header of 256 int32 (magic 20240520, version 1, count) and"
    " uint16",
    "int32": "llm.c's first release: raw int32",
}
DTYPES = {"llmc": np.dtype("<u2"), "int32": np.dtype("<i4")}  # of the tokens
OTHER_MAGICS = {
    20240326: "a GPT-2 checkpoint",
    20240327: "a debug state",
    20240328: "a tokenizer",
    20240522: "an evaluation",
    20240801: "tokens of Llama 3",
}
CHUNK = 1 << 20  # tokens, an even number
FEW = 100  # words, of which the odd ones may be small by chance


def write_tokens(path, tokens, format="llmc", companions=()):
    """Write tokens (N,) in one of TOKEN_FORMATS, little-endian; companions as in atomic_write.

    Raises FileError where a token does not fit the format or the file cannot be written.
    """
    if format not in TOKEN_FORMATS:
        raise ArgumentError(f"format must be one of {', '.join(TOKEN_FORMATS)}, not {format!r}")
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ArgumentError(
            f"tokens must be integers of shape (N,), not {tokens.dtype} of shape {tokens.shape}"
        )
    with open_writer(path, len(tokens), format, companions) as append:
        append(tokens)


@contextmanager
def open_writer(path, count, format="llmc", companions=()):
    """Open a token file of `count` tokens for writing -> a function that appends some, (N,).

    The file gets its name, and its companions theirs, once all have been written. Raises FileError
    where a token does not fit the format or the file cannot be written.
    """

    def append(tokens):
        if tokens.size:
            check_range(path, int(tokens.min()), int(tokens.max()), format)
        file.write(tokens.astype(DTYPES[format]))

    with atomic_write(path, companions) as file:
        file.write(header(format, count))
        yield append


def header(format, count):
    """What stands before the tokens in a file of `count` of them, as bytes."""
    return pack_header(MAGIC, 1, count) if format == "llmc" else b""


def check_range(path, lowest, highest, format):
    """Raise FileError unless the format has room for tokens from the lowest to the highest."""
    most = np.iinfo(DTYPES[format]).max
    if not 0 <= lowest <= highest <= most:
        raise FileError(
            f"{path}: not written: tokens must be from 0 to {most} in the format {format},"
            f" but run from {lowest} to {highest}"
        )


class TokenFile:
    """A token file: its path, the offset of its tokens in bytes, their dtype and how many."""

    def __init__(self, path, offset, dtype, count):
        self.path, self.offset, self.dtype, self.count = path, offset, np.dtype(dtype), count
        self._place = os.path.abspath(path)  # the working folder may change
        self._inode = os.stat(path).st_ino

    def __len__(self):
        return self.count

    def read(self, start, count):
        """Read `count` tokens from index `start` on, in the file's dtype.

        Raises FileError where the file was replaced, or is no longer as long as when it was opened.
        """
        with open_for_reading(self._place) as (file, size):
            end = self.offset + self.count * self.dtype.itemsize
            if os.fstat(file.fileno()).st_ino != self._inode:
                raise FileError(f"{self.path}: was replaced while in use")
            if size != end:
                raise FileError(
                    f"{self.path}: was changed while in use: it has {counted(size, 'byte')}, no"
                    f" longer {end:,}"
                )
            out = np.empty(count, self.dtype)
            file.seek(self.offset + start * self.dtype.itemsize)
            read_into(file, out, self.path)
        return out

    def chunks(self):
        """Yield all tokens, CHUNK at a time, so that they need little memory."""
        for start in range(0, self.count, CHUNK):
            yield self.read(start, min(CHUNK, self.count - start))


class Tokens:
    """The tokens of several files as one sequence.

    `paths` are the files, `tokenizer_description` is the one beside them, or None. `tokens[a:b]`
    reads a slice.
    """

    def __init__(self, paths):
        self.paths = paths
        self._files = [open_token_file(path) for path in paths]
        self._starts = np.cumsum([0, *map(len, self._files)]).tolist()
        self.tokenizer_description = common_tokenizer(paths)

    def __len__(self):
        return self._starts[-1]

    def __getitem__(self, window):
        """Read a slice of step 1 -> int64 (n,)."""
        start, stop, step = window.indices(len(self))
        if step != 1:
            raise ArgumentError(f"the step of a slice of tokens must be 1, not {step}")
        return self.read(start, max(0, stop - start))

    def read(self, start, count):
        """Read `count` tokens from index `start` on -> int64 (count,)."""
        if not 0 <= start <= start + count <= len(self):
            raise ArgumentError(
                f"tokens {start} to {start + count - 1} are out of range: there are {len(self)}"
            )
        out = np.empty(count, np.int64)
        for file, at in zip(self._files, self._starts, strict=False):
            first, last = max(start, at), min(start + count, at + len(file))
            if first < last:
                out[first - start : last - start] = file.read(first - at, last - first)
        return out

    @cached_property
    def fingerprint(self):
        """The CRC-32 of all tokens as int32, 8 hexadecimal digits: that of any file format."""
        value = 0
        for file in self._files:
            for chunk in file.chunks():
                value = zlib.crc32(chunk.astype("<i4"), value)
        return f"{value:08x}"

    def max_token_by_file(self):
        """Pairs of a file's path and its largest token."""
        for file in self._files:
            yield file.path, max(int(chunk.max()) for chunk in file.chunks())


def open_tokens(patterns):
    """Open token files -> Tokens; patterns is a path or glob pattern, or a list of them.

    A pattern's files are sorted by name. The format is detected from the content: one of
    TOKEN_FORMATS, or nanoGPT's raw uint16. Raises FileError where a file is of no such format,
    damaged or empty, and where the tokenizers beside the files differ.
    """
    patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns
    paths = [path for pattern in patterns for path in expand_pattern(os.fspath(pattern))]
    if not paths:
        raise ArgumentError("no token files are named")
    return Tokens(paths)


def expand_pattern(pattern):
    """The path itself, or the token files that a pattern matches, sorted."""
    check_path(pattern)
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    paths = sorted(glob.glob(pattern, recursive=True))
    paths = [path for path in paths if not path.endswith((".tokenizer.json", PARTIAL))]
    if not paths:
        raise FileError(f"{pattern}: no file matches this pattern")
    return paths


def open_token_file(path):
    """Find out a token file's format and length -> TokenFile."""
    with open_for_reading(path) as (file, size):
        magic = int.from_bytes(file.read(4), "little")
        if magic in OTHER_MAGICS:
            raise FileError(f"{path}: not a token file but {OTHER_MAGICS[magic]} (magic {magic})")
        offset = 0
        if magic == MAGIC:
            file.seek(0)
            _, version, count = read_header(file, size, path, "token file", MAGIC, n_used=3)
            if version != 1:
                raise FileError(f"{path}: a token file of version {version}, but only 1 is known")
            if count < 0:
                raise FileError(f"{path}: the header is damaged: its token count is {count}")
            offset = HEADER_BYTES
            check_size(path, size, offset + 2 * count, f"a token file of {counted(count, 'token')}")
        if size == offset:
            raise FileError(f"{path}: contains no tokens")
        if offset == 0:
            file.seek(0)
            kind = what_it_is(file.read(HEAD), size)
            if kind is not None:
                raise FileError(f"{path}: not a token file but {kind}")
        if size % 2:
            raise FileError(f"{path}: not a token file ({counted(size, 'byte')}, which is odd)")
    words = TokenFile(path, offset, "<u2", (size - offset) // 2)
    if magic != MAGIC and looks_like_int32(words):
        return TokenFile(path, 0, "<i4", size // 4)
    return words


def looks_like_int32(words):
    """Whether a TokenFile of uint16 has the halves of int32; raises FileError for negative ones.

    In int32 every second uint16 is an upper half: at most 3 for ids below 2^18 and mostly 0, or
    65535 for negative ids. Real uint16 text does not look like that. If it ever did, the ids would
    exceed any vocabulary, which is noticed; int32 read as uint16 would not be.
    """
    zeros = 0
    negative = False
    for chunk in words.chunks():
        upper = chunk[1::2]
        if not ((upper < 4) | (upper == 65535)).all():
            return False
        zeros += np.count_nonzero(upper == 0)
        negative = negative or bool((upper == 65535).any())
    if len(words) < 2 or 2 * zeros < len(words) // 2:
        return False
    if len(words) % 2:
        if len(words) < FEW:
            return False
        raise FileError(f"{words.path}: an int32 token file that ends in the middle of a token")
    if negative:
        raise FileError(
            f"{words.path}: tokens must be 0 or more, but this int32 file has negative ones"
        )
    return True


def common_tokenizer(paths):
    """The tokenizer description that these files share, or None if no file has one."""
    found = {path: read_tokenizer(path) or read_meta(path) for path in paths}
    named = [(path, description) for path, description in found.items() if description]
    for path, description in named[1:]:
        if description != named[0][1]:
            raise FileError(f"{path}: its tokenizer is not that of {named[0][0]}")
    return named[0][1] if named else None

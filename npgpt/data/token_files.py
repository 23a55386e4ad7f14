"""Token files: a text as a stream of integers, written and, memory-mapped, read."""

import glob
import os

import numpy as np

from npgpt.data.tokenizer import read_tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import check_size, header, opened, read_header, written

MAGIC = 20240520
FORMATS = {
    "llmc": "llm.c's of today: a header of 256 int32 (magic 20240520, version 1, count), uint16",
    "int32": "llm.c's first release: raw int32",
}
OTHER_MAGICS = {
    20240326: "a GPT-2 checkpoint",
    20240327: "a debug state",
    20240328: "a tokenizer",
    20240522: "an evaluation",
    20240801: "tokens of Llama 3",
}
CHUNK = 1 << 20


def write_tokens(path, tokens, format="llmc"):
    """Write tokens (N,) in one of FORMATS, little-endian.

    Raises FileError where a token does not fit the format or the file cannot be written.
    """
    if format not in FORMATS:
        raise ArgumentError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ArgumentError(
            f"tokens must be integers of shape (N,), not {tokens.dtype} of shape {tokens.shape}"
        )
    highest = 65535 if format == "llmc" else 2**31 - 1
    if tokens.size and not 0 <= tokens.min() <= tokens.max() <= highest:
        raise FileError(
            f"{path}: not written: tokens must be from 0 to {highest} in the format {format},"
            f" but run from {tokens.min()} to {tokens.max()}"
        )
    with written(path) as file:
        if format == "llmc":
            file.write(header(MAGIC, 1, len(tokens)))
        file.write(tokens.astype("<u2" if format == "llmc" else "<i4"))


class Tokens:
    """The tokens of some files in a row, as if they were one; they stay on disk.

    `paths` are the files, `tokenizer` is the description that stands beside them, or None.
    """

    def __init__(self, paths):
        self.paths = paths
        self._parts = [map_tokens(path) for path in paths]
        self._starts = np.cumsum([0, *map(len, self._parts)]).tolist()
        self.tokenizer = common_tokenizer(paths)

    def __len__(self):
        return self._starts[-1]

    def read(self, start, count):
        """The tokens from start on -> int64 (count,)."""
        if not 0 <= start <= start + count <= len(self):
            raise ArgumentError(
                f"tokens {start} to {start + count} are not all among the {len(self)}"
            )
        out = np.empty(count, np.int64)
        for part, at in zip(self._parts, self._starts, strict=False):
            first, last = max(start, at), min(start + count, at + len(part))
            if first < last:
                out[first - start : last - start] = part[first - at : last - at]
        return out

    def highest_by_file(self):
        """Pairs of a file's path and its largest token."""
        for path, part in zip(self.paths, self._parts, strict=True):
            yield path, max(int(piece.max()) for piece in pieces(part))


def open_tokens(patterns):
    """Open token files -> Tokens; patterns is a path or glob pattern, or a list of such.

    A pattern's files come sorted by name. What they hold is seen from their content: one of FORMATS
    or nanoGPT's raw uint16. Raises FileError where a file is neither, is damaged or holds nothing,
    and where the tokenizers beside the files disagree.
    """
    patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns
    paths = [path for pattern in patterns for path in matching(os.fspath(pattern))]
    if not paths:
        raise ArgumentError("no token files are named")
    return Tokens(paths)


def matching(pattern):
    """The path itself, or the files that a pattern matches, sorted, without the descriptions."""
    if os.path.exists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    paths = sorted(glob.glob(pattern, recursive=True))
    paths = [path for path in paths if not path.endswith(".tokenizer.json")]
    if not paths:
        raise FileError(f"{pattern}: no file has such a name")
    return paths


def map_tokens(path):
    """Map a token file into memory -> uint16 or int32 (N,)."""
    with opened(path) as (file, size):
        magic = int.from_bytes(file.read(4), "little")
        if magic in OTHER_MAGICS:
            raise FileError(f"{path}: not a token file but {OTHER_MAGICS[magic]} (magic {magic})")
        offset = 0
        if magic == MAGIC:
            file.seek(0)
            _, version, count = read_header(file, size, path, "token file", MAGIC, used=3)
            if version != 1:
                raise FileError(f"{path}: a token file of version {version}, but only 1 is known")
            if count < 0:
                raise FileError(f"{path}: the header is damaged: it counts {count} tokens")
            offset = 1024
            check_size(path, size, offset + 2 * count, f"a token file of {count} tokens")
        if size == offset:
            raise FileError(f"{path}: holds no tokens")
        if size % 2:
            raise FileError(f"{path}: not a token file ({size} bytes, which is odd)")
        tokens = np.memmap(file, "<u2", "r", offset).view(np.ndarray)
    if magic != MAGIC and looks_like_int32(tokens, path):
        return tokens.view("<i4")
    return tokens


def looks_like_int32(halves, path):
    """Whether raw uint16 (N,) are the halves of int32; raises FileError for negative ones.

    In int32 every second uint16 is an upper half: most are 0, those of ids up to 2^18 are at most
    3, and negative ids have 65535 (down to -65536). In uint16 they are tokens as any others, and a
    text of which every second token is one of the four lowest does not come up. Where it does, ids
    come out that no vocabulary has, which is noticed; the other way round would not be.
    """
    if len(halves) % 2:
        return False
    zeros = 0
    negative = False
    for upper in pieces(halves[1::2]):
        if not ((upper < 4) | (upper == 65535)).all():
            return False
        zeros += np.count_nonzero(upper == 0)
        negative = negative or bool((upper == 65535).any())
    if 2 * zeros < len(halves) // 2:
        return False
    if negative:
        raise FileError(f"{path}: tokens must be 0 or more, but this int32 file has negative ones")
    return True


def pieces(array):
    """Cut an array (N,) into pieces of CHUNK, so that nothing of a large file's size is made."""
    return (array[i : i + CHUNK] for i in range(0, len(array), CHUNK))


def common_tokenizer(paths):
    """The description beside these files, or None where no file has one."""
    found = {path: read_tokenizer(path) for path in paths}
    named = [(path, description) for path, description in found.items() if description]
    for path, description in named[1:]:
        if description != named[0][1]:
            raise FileError(f"{path}: its tokenizer is not that of {named[0][0]}")
    return named[0][1] if named else None

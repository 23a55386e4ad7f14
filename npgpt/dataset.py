"""Token files: a text as a stream of integers."""

import numpy as np

from npgpt.errors import ArgumentError, FileError
from npgpt.files import header, written

MAGIC = 20240520
FORMATS = {
    "llmc": "llm.c's of today: a header of 256 int32 (magic 20240520, version 1, count), uint16",
    "int32": "llm.c's first release: raw int32",
}


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

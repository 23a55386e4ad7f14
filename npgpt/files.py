"""Opening, reading and writing files so that a failure is one sentence and nothing is half done."""

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from npgpt.errors import FileError

HEADER_WORDS = 256
HEADER_BYTES = 4 * HEADER_WORDS


@contextmanager
def opened(path):
    """Open a regular file for reading -> file, size in bytes."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # to open a pipe would wait for its other end
            raise FileError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}")
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error


def read_text(path):
    """Read a UTF-8 file -> str."""
    with opened(path) as (file, _):
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{path}: not UTF-8 text (byte {error.start})") from error


@contextmanager
def written(path):
    """Open a file to be written: it takes its name when all is written and synced, else never."""
    target = Path(os.path.realpath(path))
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        old = os.stat(target).st_mode if target.exists() else None
        if old is not None and not stat.S_ISREG(old):
            raise FileError(f"{path}: is {'a folder' if stat.S_ISDIR(old) else 'no regular file'}")
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if old is not None:
            os.chmod(partial, stat.S_IMODE(old))
        os.replace(partial, target)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it has its name by now, or what went wrong is being told
            partial.unlink()


def read_header(file, size, path, kind, magic, used):
    """Read the 256 words that start every llm.c file -> the used ones, as ints.

    The first must be the magic, those that are not used must be 0.
    """
    if size < HEADER_BYTES:
        raise FileError(f"{path}: not a {kind} ({size} bytes, the header alone is {HEADER_BYTES})")
    words = np.frombuffer(file.read(HEADER_BYTES), "<i4").tolist()
    if words[0] != magic:
        raise FileError(f"{path}: not a {kind} (magic {words[0]}, expected {magic})")
    if any(words[used:]):
        at = next(i for i in range(used, HEADER_WORDS) if words[i])
        raise FileError(f"{path}: the header is damaged: word {at} must be 0, not {words[at]}")
    return words[:used]


def header(*words):
    """The header with these first words, as bytes."""
    return np.array([*words, *[0] * (HEADER_WORDS - len(words))], "<i4").tobytes()


def read_into(file, out, path):
    """Fill the contiguous array out from the file."""
    if out.size and file.readinto(memoryview(out).cast("B")) != out.nbytes:
        raise FileError(f"{path}: ended while it was being read")


def check_size(path, size, expected, what):
    """Refuse a file of another size than the one its header calls for."""
    if size != expected:
        fault = "truncated" if size < expected else "too long"
        raise FileError(f"{path}: {fault} ({size} bytes, {what} takes {expected})")

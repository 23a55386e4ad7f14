"""What a file without a known header holds, told by its first bytes, where it cannot be tokens.

Raw tokens have no header, so any file could be taken for them: text for pairs of letters.
"""

import itertools
import pickletools

import numpy as np

from npgpt.wording import command

HEAD = 1 << 16  # bytes that are looked at
FEWEST = 8  # numbers that are enough to tell their type
ZIP = b"PK\x03\x04"
SIGNATURES = {
    b"\x93NUMPY": "a NumPy array (.npy)",
    ZIP: "a zip archive, as Word's .docx, NumPy's .npz and PyTorch's .pt",
    b"\x1f\x8b\x08": "compressed by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x89HDF\r\n": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"GGUF": "a GGUF model",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
}
# Arrays of other types, read two bytes at a time, have zeros between their halves.
WRONG_TYPES = {"int64": "<i8", "float32": "<f4", "float64": "<f8"}


def what_it_is(head, size):
    """What a file of this size, beginning with these up to HEAD bytes, is; None: maybe tokens."""
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    length = int.from_bytes(head[:8], "little")
    if 2 <= length <= size - 8 and head[8:9] == b"{" and is_text(head[8 : 8 + length]):
        return "a safetensors file"
    if is_pickle(head):
        return "a Python pickle"
    if is_text(head):
        json = head.lstrip()[:1] in (b"{", b"[")
        return "JSON" if json else f"text: {command('prepare', 'text')} makes token files of it"
    for name, dtype in WRONG_TYPES.items():
        if holds_whole_numbers(head, size, np.dtype(dtype)):
            return f"{name} numbers: token files hold uint16 or int32"
    return None


def is_text(head):
    """Whether these bytes are UTF-8, without the control characters that texts do not have."""
    if any(byte < 32 and byte not in b"\t\n\v\f\r\x1b" for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 > 0  # the last character is cut
    return len(head) > 0


def is_pickle(head):
    """Whether these bytes are a pickle's first operations. They are parsed, never executed."""
    if head[:1] != b"\x80" or head[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return False
    try:
        names = [op.name for op, _, _ in itertools.islice(pickletools.genops(head), 8)]
    except (ValueError, IndexError, UnicodeDecodeError):
        return False
    return len(names) == 8 or names[-1] == "STOP"


def holds_whole_numbers(head, size, dtype):
    """Whether a file is an array of this type, of numbers from 0 to 2^31 and not zeros alone."""
    if size % dtype.itemsize or len(head) < FEWEST * dtype.itemsize:
        return False
    numbers = np.frombuffer(head[: len(head) // dtype.itemsize * dtype.itemsize], dtype)
    with np.errstate(invalid="ignore"):
        whole = (numbers >= 0) & (numbers < 2**31) & (numbers == np.floor(numbers))
    if dtype.kind == "f":  # denormal floats, as small integers look, are no whole numbers
        whole &= (numbers == 0) | (numbers >= 1)
    return bool(whole.all() and numbers.any())

"""Traces in files: written a tensor at a time, as they are computed, and read a tensor at a time.

A name that ends in .safetensors or .npz is a file of that format; any other is a folder of raw
little-endian arrays with a manifest.txt, a line for each: its name, its dtype (f4, f8 or i4), its
file and its sizes.
"""

import json
import math
import os
import re
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from npgpt.data.token_files import OTHER_MAGICS
from npgpt.errors import ArgumentError, FileError
from npgpt.files import atomic_write, check_path, open_for_reading, partial_folder, read_into
from npgpt.tracing.names import INTEGERS

MANIFEST = "manifest.txt"
# safetensors' names of dtypes, and NumPy's; the manifest has the latter without its byte order.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bf16", "I64": "<i8", "I32": "<i4"}
RAW_DTYPES = {"f4": "<f4", "f8": "<f8", "f2": "<f2", "i4": "<i4"}
LARGEST_HEADER = 1 << 26  # bytes
RAW_FILE, RAW_SIZE = re.compile(r"[\w.-]+"), re.compile(r"[0-9]{1,18}")
# What zipfile and NumPy raise for a damaged, encrypted or otherwise packed member.
DAMAGES = (ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError)


@contextmanager
def open_trace_writer(path, tensors):
    """Open a trace for writing -> a function that takes the tensors' names and arrays, in order.

    tensors: {name: (dtype, shape)}. The file or folder gets its name once all have been written.
    """
    written = []

    def write(name, array):
        dtype, shape = tensors[name]
        assert len(written) < len(order) and order[len(written)] == name, name
        assert array.shape == shape, f"{name}: {array.shape}, not {shape}"
        written.append(name)
        append(name, np.ascontiguousarray(array, dtype).reshape(shape))

    order = list(tensors)
    with FORMATS[format_of(path)](Path(path), tensors) as append:
        yield write
        assert written == order, f"not written: {order[len(written)]}"


def format_of(path):
    """The format that a path to write is meant for; raises ArgumentError for another suffix."""
    suffix = Path(path).suffix
    if suffix in (".safetensors", ".npz", ""):
        return suffix
    raise ArgumentError(f"{path}: must end in .safetensors or .npz, or be a folder without a dot")


@contextmanager
def write_safetensors(path, tensors):
    kinds = {dtype: kind for kind, dtype in DTYPES.items()}
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + np.dtype(dtype).itemsize * math.prod(shape)
        kind = kinds[np.dtype(dtype).str]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        yield lambda name, array: file.write(array.data)


@contextmanager
def write_npz(path, tensors):
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:

        def append(name, array):
            member = zipfile.ZipInfo(f"{name}.npy")  # of 1980, so that equal traces are equal files
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, allow_pickle=False)

        yield append


@contextmanager
def write_folder(path, tensors):
    if path.exists():
        raise FileError(f"{path}: already exists; remove it, or give another name")
    lines = []
    with partial_folder(path) as partial:

        def append(name, array):
            kind = array.dtype.str[1:]
            lines.append(" ".join([name, kind, f"{name}.{kind}", *map(str, array.shape)]))
            array.tofile(partial / f"{name}.{kind}")

        try:
            yield append
            (partial / MANIFEST).write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.rename(partial, path)
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


FORMATS = {".safetensors": write_safetensors, ".npz": write_npz, "": write_folder}


class TraceFile:
    """The tensors of a trace in a file or folder, each read when it is asked for.

    `shapes` is {name: shape}, in the file's order; a folder without a manifest has files of numbers
    without shapes, (count,). `ignored` are a folder's files that are none of its tensors. Raises
    FileError where it is damaged.
    """

    def __init__(self, path):
        self.path, self.ignored = Path(path), []
        check_path(path)
        if os.path.isdir(path):
            self._places = folder_places(self.path)
            taken = {MANIFEST, *(place[0].name for place in self._places.values())}
            self.ignored = [p.name for p in sorted(self.path.iterdir()) if p.name not in taken]
        elif self.path.suffix == ".npz":
            self._places = npz_places(self.path)
        else:
            self._places = safetensors_places(self.path)
        self.shapes = {name: place[-1] for name, place in self._places.items()}

    def __contains__(self, name):
        return name in self._places

    def dtype(self, name):
        """The dtype of a tensor: NumPy's, or "bf16"."""
        return self._places[name][-2]

    def read(self, name):
        """A tensor, in its own dtype, float32 for bfloat16."""
        file, offset, dtype, shape = self._places[name]
        if offset is None:
            return read_member(self.path, file, shape)
        with open_for_reading(file) as (opened, _):
            opened.seek(offset)
            out = np.empty(shape, "<u2" if dtype == "bf16" else dtype)
            read_into(opened, out, file)
        if dtype == "bf16":
            return (out.astype("<u4") << 16).view("<f4")
        return out


def safetensors_places(path):
    """{name: (file, offset, dtype, shape)} of a safetensors file, checked against its size."""
    with open_for_reading(path) as (file, size):
        length = int.from_bytes(file.read(8), "little")
        if other := OTHER_MAGICS.get(length & 0xFFFFFFFF):
            raise FileError(f"{path}: not a trace but {other}; npgpt trace makes a trace")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise FileError(
                f"{path}: not a safetensors file (nor .npz, nor a folder): {size} bytes, and a"
                f" header of {length}"
            )
        try:
            header = json.loads(file.read(length))
            return {
                name: safetensors_place(path, entry, 8 + length, size)
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FileError(f"{path}: the header of the safetensors file is damaged") from error


def safetensors_place(path, entry, data, size):
    start, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(entry["dtype"])
    itemsize = 2 if dtype == "bf16" else np.dtype(dtype).itemsize
    whole = all(isinstance(n, int) and n >= 0 for n in (start, *shape))
    if not whole or end - start != itemsize * math.prod(shape) or data + end > size:
        raise ValueError(entry)
    return path, data + start, dtype, shape


def npz_places(path):
    """As safetensors_places, of an .npz: the file is the member's name, the offset None."""
    places = {}
    with open_npz(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            try:
                with archive.open(member) as file:
                    shape, dtype = npy_header(file)
                    size = file.tell() + np.dtype(dtype).itemsize * math.prod(shape)
                if size != archive.getinfo(member).file_size:
                    raise ValueError(size)
            except DAMAGES as error:
                raise FileError(f"{path}: {member} is not an array") from error
            places[name] = member, None, dtype, shape
    return places


def npy_header(file):
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(version)
    shape, _, dtype = read[version](file)
    if dtype.kind not in "fiu":
        raise ValueError(dtype)
    return shape, dtype.str


@contextmanager
def open_npz(path):
    with open_for_reading(path) as (file, _):
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGES as error:
            raise FileError(f"{path}: not an .npz file: {error}") from error
        with archive:
            yield archive


def read_member(path, member, shape):
    with open_npz(path) as archive:
        size = archive.getinfo(member).file_size
        try:
            with archive.open(member) as file:
                out = np.lib.format.read_array(file, allow_pickle=False)
        except DAMAGES as error:
            raise FileError(f"{path}: {member} is damaged ({size} bytes): {error}") from error
    assert out.shape == shape
    return out


def folder_places(path):
    """As safetensors_places, of a folder: by its manifest, or else of all its raw files."""
    manifest = path / MANIFEST
    if not manifest.exists():
        files = [p for p in sorted(path.iterdir()) if p.suffix[1:] in RAW_DTYPES]
        if not files:
            raise FileError(f"{path}: no {MANIFEST}, and no files that end in .f4, .f8, .f2 or .i4")
        return {file.stem: raw_place(path, file.name, file.suffix[1:], None) for file in files}
    places = {}
    with open_for_reading(manifest) as (file, size):
        if size > LARGEST_HEADER:
            raise FileError(f"{manifest}: {size} bytes, but {LARGEST_HEADER} are the most")
        lines = file.read().decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.split():
            continue
        words = [*line.split(), "", "", ""]  # so that a short line has three too
        name, kind, raw = words[:3]
        sizes = words[3:-3]
        shape = tuple(int(n) for n in sizes if RAW_SIZE.fullmatch(n))
        if kind not in RAW_DTYPES or not RAW_FILE.fullmatch(raw) or len(shape) != len(sizes):
            raise FileError(
                f"{manifest}: line {number} must be a name, one of {', '.join(RAW_DTYPES)}, a file"
                f" of this folder and its sizes, not {line!r}"
            )
        places[name] = raw_place(path, raw, kind, shape)
    return places


def raw_place(folder, name, kind, shape):
    file, dtype = folder / name, np.dtype(RAW_DTYPES[kind])
    with open_for_reading(file) as (_, size):
        pass
    if shape is None:
        shape = (size // dtype.itemsize,)
    if size != dtype.itemsize * math.prod(shape):
        raise FileError(f"{file}: {size} bytes, but {shape} of {kind} take"
                        f" {dtype.itemsize * math.prod(shape)}")  # fmt: skip
    return file, 0, dtype.str, shape


def dtype_of(name, dtype):
    """The dtype that a tensor is written in: integers for the inputs, else `dtype`."""
    return INTEGERS.get(name, np.dtype(dtype))

"""The two sides of a comparison: tensors by npgpt's names, in npgpt's shapes, in float64."""

import math
import tomllib
from collections import OrderedDict
from difflib import get_close_matches

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.errors import ArgumentError, FileError
from npgpt.files import open_for_reading
from npgpt.tracing.files import TraceFile
from npgpt.tracing.names import INPUTS, STEPS, in_order, shape_of, split_name
from npgpt.wording import counted

CACHED_BYTES = 1 << 30
MOST_BLOCKS = 1000  # some 50 names each are listed
LARGEST_MAP = 1 << 20  # bytes
# The axis of the vocabulary, and how far it is padded in an array without a shape, of which nothing
# else tells: to the next multiple of 128 in llm.c's files, of 64 in nanoGPT's.
VOCAB_AXES = {"wte": 0, "dwte": 0, "logits": 2, "dlogits": 2, "probs": 2}
PADDED_TO = (128, 64)


class Expected:
    """EXPECTED, a trace that npgpt has written: what it is of, and its tensors."""

    def __init__(self, path):
        self.path, self.file = path, TraceFile(path)
        for name in INPUTS:
            if name not in self.file:
                raise FileError(f"{path}: not a trace by npgpt trace: it has no tensor {name}")
        try:
            self.config = GPT2Config(*self.file.read("config").tolist())
        except (ArgumentError, TypeError) as error:
            raise FileError(f"{path}: the tensor config is damaged: {error}") from error
        if self.config.n_layer > MOST_BLOCKS:
            raise FileError(
                f"{path}: n_layer must be at most {MOST_BLOCKS}, not {self.config.n_layer}"
            )
        if len(self.file.shapes["tokens"]) != 2:
            raise FileError(f"{path}: tokens must be (B, T), not {self.file.shapes['tokens']}")
        self.B, self.T = self.file.shapes["tokens"]
        self.steps = sum(name.startswith("step_loss.") for name in self.file.shapes)
        self.names = list(in_order(self.config.n_layer, steps=self.steps))
        for name in self.names:
            if name in self.file and self.file.shapes[name] != self.shape(name):
                raise FileError(
                    f"{path}: {name} must be {self.shape(name)}, not {self.file.shapes[name]}"
                )

    def shape(self, name):
        """The shape that the tensor of this name has by the config."""
        return shape_of(name, self.config, self.B, self.T)

    def __contains__(self, name):
        return name in self.file

    def read(self, name):
        """A tensor in float64, or as integers."""
        return as_float64(self.file.read(name))


class Mine:
    """MINE, a trace that anyone has written, by the names and shapes of EXPECTED.

    Its tensors may be under names of its own (`names`: npgpt's name -> template, as read_map
    returns), stacked over the blocks, without a shape, or padded along the vocabulary.
    """

    def __init__(self, path, expected, names=None):
        self.file, self.expected = TraceFile(path), expected
        names = names or {}
        self._places = {}
        for name in expected.names:
            base, block = split_name(name)
            own = names.get(base, base)
            each = own.format(block=block) if "{block}" in own else name if own == base else own
            if each in self.file:
                stacked = block is not None and "{block}" not in own and own != base
                self._places[name] = each, block if stacked else None
            elif block is not None and own in self.file and base not in STEPS:
                self._places[name] = own, block
        for base, own in names.items():
            if not any(split_name(name)[0] == base for name in self._places):
                raise FileError(f"{path}: no tensor {own}, which the map has for {base}")
        if not self._places:
            there = ", ".join(self.unknown()[:5])
            raise FileError(f"{path}: no tensor has a name of a trace: it holds {there}, ...")

    def unknown(self):
        """What is there under a name that is none, each with the name that it may be meant for."""
        used = {own for own, _ in self._places.values()}
        return [
            self.with_near_name(name)
            for name in (*self.file.shapes, *self.file.ignored)
            if name not in used
        ]

    def with_near_name(self, name):
        """A name that is none, with the reason in brackets where it can be guessed."""
        base, number = split_name(name)
        L, names = self.expected.config.n_layer, self.expected.names
        if base in STEPS and number is not None:
            return f"{name} (EXPECTED has {counted(self.expected.steps, 'update')})"
        if number is not None and f"{base}.0" in names:
            return f"{name} (the last block is {L - 1})"
        missing = [each for each in names if each not in self._places]
        bases = dict.fromkeys(split_name(each)[0] for each in missing)
        near = get_close_matches(name, [*missing, *bases], 1)
        return f"{name} ({near[0]}?)" if near else name

    def __contains__(self, name):
        return name in self._places

    def own_name(self, name):
        """What the tensor is called there."""
        return self._places[name][0]

    def dtype(self, name):
        """Its dtype there: NumPy's, or "bf16"."""
        return self.file.dtype(self._places[name][0])

    def read(self, name):
        """A tensor in float64 or as integers, in the shape that it has there if none fits."""
        own, block = self._places[name]
        array, shape = as_float64(self.file.read(own)), self.expected.shape(name)
        if block is not None:
            L = self.expected.config.n_layer
            if array.ndim and len(array) == L:
                array = array[block]
            elif array.size % L == 0:
                array = array.reshape(L, -1)[block]
        return fitted(array, shape, VOCAB_AXES.get(split_name(name)[0]))


def as_float64(array):
    with np.errstate(invalid="ignore"):  # of a NaN with any bits
        return array if array.dtype.kind in "iu" else array.astype(np.float64)


def fitted(array, shape, vocab_axis=None):
    """The array in this shape: reshaped if it is flat, cut where the vocabulary is padded."""
    if array.shape == shape:
        return array
    if array.ndim == 1 and array.size == math.prod(shape):
        return array.reshape(shape)
    if vocab_axis is not None:
        before, V, after = shape[:vocab_axis], shape[vocab_axis], shape[vocab_axis + 1 :]
        if array.ndim == 1:
            for multiple in PADDED_TO:
                padded = (*before, V + -V % multiple, *after)
                if array.size == math.prod(padded):
                    array = array.reshape(padded)
                    break
        lengths = array.shape[:vocab_axis], array.shape[vocab_axis + 1 :]
        if array.ndim == len(shape) and lengths == (before, after) and array.shape[vocab_axis] > V:
            return array[tuple(map(slice, shape))]
    squeezed = tuple(n for n in array.shape if n != 1)
    if squeezed == tuple(n for n in shape if n != 1):
        return array.reshape(shape)
    return array


def read_map(path):
    """Read a TOML file of names: npgpt's = "own", {block} where the number of the block is."""
    with open_for_reading(path) as (file, size):
        if size > LARGEST_MAP:
            raise FileError(f"{path}: {size} bytes, but {LARGEST_MAP} are the most")
        try:
            names = tomllib.loads(file.read().decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path}: not TOML: {error}") from error
    known = {split_name(name)[0] for name in in_order(1, steps=1)}
    for name, own in names.items():
        if name not in known:
            raise FileError(f"{path}: {name} is no name of a trace, such as qkv or dfcw")
        if not isinstance(own, str):
            raise FileError(f"{path}: {name} must be a name in quotes, not {own!r}")
        try:
            own.format(block=0)
        except (LookupError, ValueError, AttributeError) as error:
            raise FileError(f"{path}: {name} = {own!r}: only {{block}} may be in braces") from error
    return names


class Cache(OrderedDict):
    """The arrays read or computed last, some CACHED_BYTES of them."""

    bytes = 0

    def keep(self, key, array):
        """Keep an array, or a tuple of them, under a new key, and forget the oldest."""
        self[key] = array
        self.bytes += size_of(array)
        while len(self) > 1 and self.bytes > CACHED_BYTES:
            self.bytes -= size_of(self.popitem(last=False)[1])
        return array


def size_of(value):
    return sum(map(size_of, value)) if isinstance(value, tuple) else np.asarray(value).nbytes


def is_parameter(name):
    """Whether the tensor is one of the model's, and not computed."""
    return split_name(name)[0] in TENSOR_NAMES

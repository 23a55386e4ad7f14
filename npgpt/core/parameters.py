"""The sixteen tensors of a GPT-2 as named views on one flat buffer, in the order of its files."""

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import groupby
from types import SimpleNamespace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npgpt.core.config import GPT2Config
from npgpt.errors import ArgumentError


def parameter_shapes(config):
    """Name -> shape of each tensor, in order; the twelve of a block are stacked over L layers."""
    L, C = config.n_layer, config.n_embd
    return {
        "wte": (config.vocab_size, C),
        "wpe": (config.block_size, C),
        "ln1w": (L, C),
        "ln1b": (L, C),
        "qkvw": (L, 3 * C, C),
        "qkvb": (L, 3 * C),
        "attprojw": (L, C, C),
        "attprojb": (L, C),
        "ln2w": (L, C),
        "ln2b": (L, C),
        "fcw": (L, 4 * C, C),
        "fcb": (L, 4 * C),
        "fcprojw": (L, C, 4 * C),
        "fcprojb": (L, C),
        "lnfw": (C,),
        "lnfb": (C,),
    }


NAMES = tuple(parameter_shapes(GPT2Config()))
BLOCK_NAMES = NAMES[2:-2]
# What weight decay applies to in GPT-2's recipe: all but biases and layernorms.
MATRICES = ("wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw")
# The weights of matrix products, which can be quantized; wpe is only looked up.
QUANTIZABLE = tuple(name for name in MATRICES if name != "wpe")


def count_parameters(config):
    """The number of parameters, the tied head counted once: 124,439,808 for the 124M model."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def aligned_zeros(count, dtype):
    """Zeros (count,) that begin at a multiple of 64 bytes, the widest vector and a cache line.

    So do all tensors whose C is a multiple of 16: the kernels are a tenth faster on them.
    """
    dtype = np.dtype(dtype)
    zeros = np.zeros(count + 64 // dtype.itemsize, dtype)
    start = -zeros.ctypes.data % 64 // dtype.itemsize
    return zeros[start : start + count]


class Parameters:
    """Weights, gradients or moments: `flat` (N,) and sixteen views on it, from `wte` to `lnfb`.

    `blocks[l]` has layer l's slices of the stacked twelve under the same names. `wte_padding`
    (Vp - V, C) holds the rows by which a file pads wte. They are carried from file to file, belong
    to no buffer and take part in nothing; None where no padded file was read.
    """

    wte: NDArray[np.floating]  # (V, C)
    wpe: NDArray[np.floating]  # (maxT, C)
    ln1w: NDArray[np.floating]  # (L, C)
    ln1b: NDArray[np.floating]  # (L, C)
    qkvw: NDArray[np.floating]  # (L, 3C, C)
    qkvb: NDArray[np.floating]  # (L, 3C)
    attprojw: NDArray[np.floating]  # (L, C, C)
    attprojb: NDArray[np.floating]  # (L, C)
    ln2w: NDArray[np.floating]  # (L, C)
    ln2b: NDArray[np.floating]  # (L, C)
    fcw: NDArray[np.floating]  # (L, 4C, C)
    fcb: NDArray[np.floating]  # (L, 4C)
    fcprojw: NDArray[np.floating]  # (L, C, 4C)
    fcprojb: NDArray[np.floating]  # (L, C)
    lnfw: NDArray[np.floating]  # (C,)
    lnfb: NDArray[np.floating]  # (C,)

    def __init__(
        self,
        config: GPT2Config,
        flat: NDArray[np.floating] | None = None,
        dtype: DTypeLike = np.float32,
        wte_padding: NDArray[np.floating] | None = None,
    ):
        """Put the views on flat (N,), or on new zeros of the given dtype.

        Raises ArgumentError where flat is not contiguous, or not as long as the config asks for.
        """
        count = count_parameters(config)
        if flat is None:
            flat = aligned_zeros(count, dtype)
        if flat.shape != (count,) or not flat.flags.c_contiguous:
            raise ArgumentError(
                f"flat must be C-contiguous of shape ({count},), but is of shape {flat.shape} and"
                f" strides {flat.strides}"
            )
        self.config = config
        self.flat = flat
        self.wte_padding = wte_padding
        start = 0
        for name, shape in parameter_shapes(config).items():
            stop = start + math.prod(shape)
            setattr(self, name, flat[start:stop].reshape(shape))
            start = stop

    @cached_property
    def blocks(self) -> list[SimpleNamespace]:
        """Layer by layer, its slices of the stacked twelve."""
        return [
            SimpleNamespace(**{name: getattr(self, name)[layer] for name in BLOCK_NAMES})
            for layer in range(self.config.n_layer)
        ]

    def zeros_like(self) -> "Parameters":
        """Parameters of the same sizes and dtype, all zeros: for gradients or moments."""
        return Parameters(self.config, dtype=self.flat.dtype)

    def __reduce__(self):
        """Copy and pickle the buffer alone: copied one by one, the views would not be on it."""
        return Parameters, (self.config, self.flat, self.flat.dtype, self.wte_padding)

    def spans(self) -> Iterator[tuple[slice, bool]]:
        """Pairs of a slice of flat and whether what it holds are MATRICES, in order."""
        start = 0
        for matrices, names in groupby(NAMES, lambda name: name in MATRICES):
            stop = start + sum(getattr(self, name).size for name in names)
            yield slice(start, stop), matrices
            start = stop

    def items(self) -> list[tuple[str, NDArray[np.floating]]]:
        """Pairs of name and view, in order."""
        return [(name, getattr(self, name)) for name in NAMES]

    @classmethod
    def init(cls, config: GPT2Config, seed: int = 0, dtype: DTypeLike = np.float32) -> "Parameters":
        """Weights to train from scratch, as GPT-2's: normal(0, 0.02), biases 0, layernorms 1.

        The two projections back into the residual stream are scaled by 1 / sqrt(2 L) (Radford et
        al. 2019, section 2.3). The same seed gives the same weights.
        """
        rng = np.random.default_rng(seed)
        params = cls(config, dtype=dtype)
        for name, view in params.items():
            if name in MATRICES:
                rng.standard_normal(dtype=view.dtype, out=view)  # type: ignore[arg-type]
                residual = name in ("attprojw", "fcprojw")
                view *= 0.02 / math.sqrt(2 * config.n_layer) if residual else 0.02
            elif name in ("ln1w", "ln2w", "lnfw"):
                view.fill(1)
        return params

"""The sixteen tensors of a GPT-2 as named views of one flat buffer, in llm.c's file order."""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from npgpt.core.config import GPT2Config, is_integer
from npgpt.errors import ArgumentError


def parameter_shapes(config):
    """Name -> shape of each tensor, in order; the blocks' twelve are stacked over L layers."""
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


TENSOR_NAMES = tuple(parameter_shapes(GPT2Config()))
BLOCK_NAMES = TENSOR_NAMES[2:-2]
# Weight-decayed in nanoGPT's recipe: all tensors but biases and layernorms.
MATRICES = ("wte", "wpe", "qkvw", "attprojw", "fcw", "fcprojw")
# The matrices of the blocks, which Muon updates.
HIDDEN_MATRICES = ("qkvw", "attprojw", "fcw", "fcprojw")
# The weights of matrix products, which can be quantized; wpe is only looked up.
QUANTIZABLE = tuple(name for name in MATRICES if name != "wpe")


def count_parameters(config):
    """The number of parameters, the tied lm_head counted once: 124,439,808 for the 124M model."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def aligned_zeros(count, dtype):
    """Zeros (count,), 64-byte aligned: a cache line, and the widest SIMD vector.

    In float32 every tensor is then aligned if C is a multiple of 16: kernels run 10% faster.
    """
    dtype = np.dtype(dtype)
    zeros = np.zeros(count + 64 // dtype.itemsize, dtype)
    start = -zeros.ctypes.data % 64 // dtype.itemsize
    return zeros[start : start + count]


class Views:
    """Views of one buffer by name. Assigning to one copies into it: it stays a view."""

    def __setattr__(self, name, value):
        """Set an attribute, or copy the value, an array of the same shape, into the view."""
        view = self.__dict__.get(name)
        if name not in ("flat", *TENSOR_NAMES) or view is None:
            return super().__setattr__(name, value)
        if np.shape(value) != view.shape:
            raise ArgumentError(
                f"{name} must be assigned an array of shape {view.shape}, not {np.shape(value)}"
            )
        view[...] = value


class Parameters(Views):
    """Weights, gradients or moments: `flat` (n_params,) and sixteen views of it, wte to lnfb.

    Assigning to one of them, as in params.wte = params.wte * 2, copies into it. `blocks[l]` has
    layer l's slices of the stacked twelve under the same names. `wte_padding` (padded_vocab_size -
    V, C) has the extra wte rows of a padded file, kept to be written back, or is None. They are not
    in `flat`, and nothing computes with them.
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
        """Build the views on flat (n_params,), or on new zeros of the given dtype.

        Raises ArgumentError unless flat is C-contiguous and has count_parameters(config) elements.
        """
        count = count_parameters(config)
        if flat is None:
            flat = aligned_zeros(count, dtype)
        if not isinstance(flat, np.ndarray):
            raise ArgumentError(f"flat must be an array, not of type {type(flat).__name__}")
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
    def blocks(self) -> list[Any]:
        """Each layer's slices of the twelve stacked tensors, under the same names."""
        blocks = [Views() for _ in range(self.config.n_layer)]
        for layer, block in enumerate(blocks):
            for name in BLOCK_NAMES:
                setattr(block, name, getattr(self, name)[layer])
        return blocks

    def zeros_like(self) -> "Parameters":
        """Parameters of the same sizes and dtype, all zeros: for gradients or moments."""
        return Parameters(self.config, dtype=self.flat.dtype)

    def __reduce__(self):
        """Pickle and copy only the buffer: views copied one by one would not share it."""
        return Parameters, (self.config, self.flat, self.flat.dtype, self.wte_padding)

    def spans(self, kind: Callable[[str], Any]) -> Iterator[tuple[slice, Any]]:
        """Yield pairs (slice of flat, kind(name) of the tensors in it), in order.

        Neighbours of the same kind are in one slice.
        """
        start = 0
        for value, names in groupby(TENSOR_NAMES, kind):
            stop = start + sum(getattr(self, name).size for name in names)
            yield slice(start, stop), value
            start = stop

    def slots(self) -> Iterator[tuple[str, Any, NDArray[np.floating]]]:
        """Yield (name, layer, view) of each tensor, in order, to be filled.

        Those of the blocks come layer by layer; of the others the layer is `...`.
        """
        for name, view in self.items():
            for layer in range(self.config.n_layer) if name in BLOCK_NAMES else [...]:
                yield name, layer, view[layer]

    def pieces(self) -> Iterator[NDArray[np.floating]]:
        """Yield the whole buffer in order, here in one piece."""
        yield self.flat

    def items(self) -> list[tuple[str, NDArray[np.floating]]]:
        """Pairs of name and view, in order."""
        return [(name, getattr(self, name)) for name in TENSOR_NAMES]

    @classmethod
    def init(cls, config: GPT2Config, seed: int = 0, dtype: DTypeLike = np.float32) -> "Parameters":
        """Initial weights, as nanoGPT's: normal(0, 0.02), biases 0, layernorm weights 1.

        The two projections back into the residual stream are scaled by 1 / sqrt(2 L) (Radford et
        al. 2019, section 2.3). The same seed gives the same weights; raises ArgumentError for one
        that is negative or no integer.
        """
        if not is_integer(seed) or seed < 0:
            raise ArgumentError(f"seed must be an integer of at least 0, not {seed!r}")
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

"""Decoding with kernels: a few positions run through all blocks in one kernel call."""

from functools import cached_property

import numpy as np

from npgpt.kernels.decode.blocks import decode_blocks, decode_params
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows
from npgpt.model.decoder import Decoder


class FusedDecoder(Decoder):
    """A Decoder of compiled layers.

    Up to GEMV_MAX_ROWS rows read the matrices in their weight format, and no precision rounds them.
    Up to DOT_MAX_ROWS one kernel makes all blocks.
    """

    def __init__(self, params, layers):
        super().__init__(params, layers)
        self.few_rows = FewRows(layers)

    def blocks(self, x, kv_cache, pos):
        """As Decoder.blocks."""
        if x.shape[0] * x.shape[1] <= DOT_MAX_ROWS:
            return decode_blocks(x, self.stacked_blocks, kv_cache, pos)
        return super().blocks(x, kv_cache, pos)

    def layers_for(self, rows):
        """As Decoder.layers_for."""
        return self.few_rows if rows <= GEMV_MAX_ROWS else self.layers

    @cached_property
    def stacked_blocks(self):
        """The parameters of all blocks in the kernel's layout."""
        return decode_params(self.params)


class FewRows:
    """Layer functions whose matmul_forward is for up to GEMV_MAX_ROWS positions."""

    def __init__(self, layers):
        self._layers = layers

    def __getattr__(self, name):
        return getattr(self._layers, name)

    @staticmethod
    def matmul_forward(x, w, b=None):
        """As of any layers; w can also be in a weight format. There is no cache."""
        values = w if isinstance(w, np.ndarray) else w.values
        out = np.empty((*x.shape[:-1], len(values)), x.dtype)
        few_rows(x.reshape(-1, x.shape[-1]), w, out.reshape(-1, len(values)), b)
        return out, None

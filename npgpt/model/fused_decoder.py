"""Decoding with kernels: a few positions run through all blocks in one kernel call."""

from functools import cached_property

import numpy as np

from npgpt.kernels.decode.blocks import decode_blocks, decode_params
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows
from npgpt.model.decoder import Decoder, block_step


class FusedDecoder(Decoder):
    """A Decoder of compiled layers.

    Up to GEMV_MAX_ROWS rows (B * N) read the matrices in their weight format, and no precision
    rounds them. Up to DOT_MAX_ROWS one kernel makes all blocks.
    """

    def __init__(self, params, layers):
        super().__init__(params, layers)
        self.few_rows = FewRows(layers)

    def step(self, tokens, kv_cache, pos):
        """As Decoder.step."""
        p, layers = self.params, self.layers
        x, _ = layers.encoder_forward(np.ascontiguousarray(tokens), p.wte, p.wpe[pos:])  # (B, N, C)
        if tokens.size <= DOT_MAX_ROWS:
            x = decode_blocks(x, self.stacked_blocks, kv_cache, pos)  # (B, N, C)
        else:
            for block, block_kv in zip(p.blocks, kv_cache, strict=True):
                x = block_step(x, block, block_kv, pos, self.layers_for(tokens.size))
        last = np.ascontiguousarray(x[:, -1])  # (B, C)
        lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
        logits, _ = self.layers_for(len(last)).matmul_forward(lnf, p.wte)
        return logits

    def layers_for(self, rows):
        """The layer functions for so many rows."""
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

"""Decoding with kernels: a few positions run through all blocks in one kernel call."""

from functools import cached_property

import numpy as np

from npgpt.kernels.decode.blocks import decode_blocks, decode_params
from npgpt.kernels.products.gemv import GEMV_MAX_ROWS
from npgpt.model.decoder import Decoder


class FusedDecoder(Decoder):
    """A Decoder of compiled layers.

    Up to GEMV_MAX_ROWS rows (B * N) read the quantized matrices (from quantize_weights, empty for
    float32); more rows read the float32 parameters.
    """

    def __init__(self, params, layers, quantized):
        super().__init__(params, layers)
        self.quantized = quantized

    def step(self, tokens, kv_cache, pos):
        """As Decoder.step."""
        if tokens.size > GEMV_MAX_ROWS:
            return super().step(tokens, kv_cache, pos)
        p, layers = self.params, self.layers
        x, _ = layers.encoder_forward(np.ascontiguousarray(tokens), p.wte, p.wpe[pos:])  # (B, N, C)
        x = decode_blocks(x, self.stacked_blocks, kv_cache, pos)  # (B, N, C)
        last = np.ascontiguousarray(x[:, -1])  # (B, C)
        lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
        logits, _ = layers.matmul_forward(lnf, self.quantized.get("wte", p.wte))
        return logits

    @cached_property
    def stacked_blocks(self):
        """The parameters of all blocks in the kernel's layout."""
        return decode_params(self.params, self.quantized)

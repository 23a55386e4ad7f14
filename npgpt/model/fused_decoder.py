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

    def step(self, tokens, kv, at):
        """As Decoder.step."""
        if tokens.size > GEMV_MAX_ROWS:
            return super().step(tokens, kv, at)
        p, layers = self.params, self.layers
        x, _ = layers.encoder_forward(np.ascontiguousarray(tokens), p.wte, p.wpe[at:])  # (B, N, C)
        x = decode_blocks(x, self.blocks, kv, at)  # (B, N, C)
        last = np.ascontiguousarray(x[:, -1])  # (B, C)
        lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
        logits, _ = layers.matmul_forward(lnf, self.quantized.get("wte", p.wte))
        return logits

    @cached_property
    def blocks(self):
        """The parameters of all blocks, as the kernel takes them."""
        return decode_params(self.params, self.quantized)

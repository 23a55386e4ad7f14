"""Decoding with kernels: a few positions go through all blocks in one of them."""

from functools import cached_property

import numpy as np

from npgpt.kernels.matmul import FEW
from npgpt.kernels.step import blocks_of, blocks_step
from npgpt.model.decoder import Decoder


class FusedDecoder(Decoder):
    """A Decoder of compiled layers.

    Up to FEW positions read matrices in the format they are stored in (`stored`, as round_weights
    gives it, else float32), more of them take float32's.
    """

    def __init__(self, params, layers, stored):
        super().__init__(params, layers)
        self.stored = stored

    def step(self, tokens, kv, at):
        """As Decoder.step."""
        if tokens.size > FEW:
            return super().step(tokens, kv, at)
        p, layers = self.params, self.layers
        x, _ = layers.encoder_forward(np.ascontiguousarray(tokens), p.wte, p.wpe[at:])  # (B, N, C)
        x = blocks_step(x, self.blocks, kv, at)  # (B, N, C)
        last = np.ascontiguousarray(x[:, -1])  # (B, C)
        lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
        logits, _ = layers.matmul_forward(lnf, self.stored.get("wte", p.wte))
        return logits

    @cached_property
    def blocks(self):
        """The parameters of all blocks, as the kernel takes them."""
        return blocks_of(self.params, self.stored)

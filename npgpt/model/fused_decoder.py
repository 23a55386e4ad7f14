"""Decoding with kernels: a few positions run through all blocks in one kernel call."""

from functools import cached_property

import numpy as np

from npgpt.kernels.decode.blocks import decode_blocks, decode_params, layer_params
from npgpt.kernels.products.gemv import DOT_MAX_ROWS, GEMV_MAX_ROWS, few_rows
from npgpt.model.decoder import Decoder, block_step


class FusedDecoder(Decoder):
    """A Decoder of compiled layers.

    Up to GEMV_MAX_ROWS rows (B * N) read the quantized matrices (from quantize_weights, empty for
    float32), and no precision rounds them; more rows read the float32 parameters. Up to
    DOT_MAX_ROWS one kernel makes all blocks.
    """

    def __init__(self, params, layers, quantized):
        super().__init__(params, layers)
        self.quantized, self.few_rows = quantized, FewRows(layers)

    def step(self, tokens, kv_cache, pos):
        """As Decoder.step."""
        if tokens.size > GEMV_MAX_ROWS:
            return super().step(tokens, kv_cache, pos)
        p, layers = self.params, self.layers
        x, _ = layers.encoder_forward(np.ascontiguousarray(tokens), p.wte, p.wpe[pos:])  # (B, N, C)
        if tokens.size <= DOT_MAX_ROWS:
            x = decode_blocks(x, self.stacked_blocks, kv_cache, pos)  # (B, N, C)
        else:
            for block, block_kv in zip(self.blocks, kv_cache, strict=True):
                x = block_step(x, block, block_kv, pos, self.few_rows)
        last = np.ascontiguousarray(x[:, -1])  # (B, C)
        lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
        logits, _ = self.few_rows.matmul_forward(lnf, self.quantized.get("wte", p.wte))
        return logits

    @cached_property
    def stacked_blocks(self):
        """The parameters of all blocks in the kernel's layout."""
        return decode_params(self.params, self.quantized)

    @cached_property
    def blocks(self):
        """The parameters of each block, the matrices Scaled."""
        return [layer_params(self.stacked_blocks, i) for i in range(len(self.params.blocks))]


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

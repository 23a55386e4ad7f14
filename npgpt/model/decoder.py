"""Decoding: a forward pass over the new positions only, with a key-value cache."""

import numpy as np


class Decoder:
    """Runs new tokens through a model, given its Parameters and layer functions."""

    def __init__(self, params, layers):
        self.params, self.layers = params, layers

    def step(self, tokens, kv_cache, pos):
        """Run tokens (B, N) at positions pos, pos + 1, ... -> logits (B, V) of the next token.

        kv_cache (L, 2, B, NH, maxT, hs) holds the keys and values before pos; the new ones are
        added.
        """
        p, layers, tokens = self.params, self.layers, np.ascontiguousarray(tokens)
        x, _ = layers.encoder_forward(tokens, p.wte, p.wpe[pos:])  # (B, N, C)
        x = self.blocks(x, kv_cache, pos)  # (B, N, C)
        last = np.ascontiguousarray(x[:, -1])  # (B, C)
        lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
        logits, _ = self.layers_for(len(last)).matmul_forward(lnf, p.wte)
        return logits

    def blocks(self, x, kv_cache, pos):
        """All blocks: x (B, N, C) -> (B, N, C)."""
        layers = self.layers_for(x.shape[0] * x.shape[1])
        for block, block_kv in zip(self.params.blocks, kv_cache, strict=True):
            x = block_step(x, block, block_kv, pos, layers)
        return x

    def layers_for(self, rows):
        """The layer functions for matrices of so many rows."""
        return self.layers


def block_step(x, p, kv_cache, pos, layers):
    """block_forward for new positions only, at the caller's precision: x (B, N, C) -> (B, N, C)."""
    ln1, _ = layers.layernorm_forward(x, p.ln1w, p.ln1b)  # (B, N, C)
    qkv, _ = layers.matmul_forward(ln1, p.qkvw, p.qkvb)  # (B, N, 3C)
    atty = layers.attention_step(qkv, kv_cache, pos)  # (B, N, C)
    attproj, _ = layers.matmul_forward(atty, p.attprojw, p.attprojb)  # (B, N, C)
    x = layers.residual_add(x, attproj)
    ln2, _ = layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, N, C)
    fch, _ = layers.matmul_forward(ln2, p.fcw, p.fcb)  # (B, N, 4C)
    act, _ = layers.gelu_forward(fch)  # (B, N, 4C)
    fcproj, _ = layers.matmul_forward(act, p.fcprojw, p.fcprojb)  # (B, N, C)
    return layers.residual_add(x, fcproj)

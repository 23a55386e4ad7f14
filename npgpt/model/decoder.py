"""Decoding: a model's pass over new positions alone, with the keys and values of those before."""

import numpy as np


class Decoder:
    """Takes new tokens through a model: Parameters and the layer functions to compute with."""

    def __init__(self, params, layers):
        self.params, self.layers = params, layers

    def step(self, tokens, kv, at):
        """The N tokens (B, N) at positions from `at` on -> logits (B, V) of the next one.

        kv (L, 2, B, NH, maxT, hs) has the keys and values of the positions before, and then theirs.
        """
        return forward_step(tokens, kv, at, self.params, self.layers)


def forward_step(tokens, kv, at, p, layers):
    """As Decoder.step, with Parameters p."""
    x, _ = layers.encoder_forward(np.ascontiguousarray(tokens), p.wte, p.wpe[at:])  # (B, N, C)
    for block, block_kv in zip(p.blocks, kv, strict=True):
        x = block_step(x, block, block_kv, at, layers)
    last = np.ascontiguousarray(x[:, -1])  # (B, C)
    lnf, _ = layers.layernorm_forward(last, p.lnfw, p.lnfb)
    logits, _ = layers.matmul_forward(lnf, p.wte)
    return logits


def block_step(x, p, kv, at, layers):
    """block_forward for new positions alone: x (B, N, C) -> (B, N, C)."""
    ln1, _ = layers.layernorm_forward(x, p.ln1w, p.ln1b)  # (B, N, C)
    qkv, _ = layers.matmul_forward(ln1, p.qkvw, p.qkvb)  # (B, N, 3C)
    atty = layers.attention_step(qkv, kv, at)  # (B, N, C)
    attproj, _ = layers.matmul_forward(atty, p.attprojw, p.attprojb)  # (B, N, C)
    x = layers.residual_add(x, attproj)
    ln2, _ = layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, N, C)
    fch, _ = layers.matmul_forward(ln2, p.fcw, p.fcb)  # (B, N, 4C)
    act, _ = layers.gelu_forward(fch)  # (B, N, 4C)
    fcproj, _ = layers.matmul_forward(act, p.fcprojw, p.fcprojb)  # (B, N, C)
    return layers.residual_add(x, fcproj)

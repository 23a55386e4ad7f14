"""GPT-2's forward pass and backward pass, as mirror images.

p holds the parameters, g their gradients. `layers` is the set of layer functions to compute with:
npgpt.layers, the NumPy reference, or npgpt.kernels, its compiled counterpart.
"""

from typing import Any, NamedTuple

import numpy as np

from npgpt.core.precision import at_least_bf16x3
from npgpt.layers.crossentropy import IGNORED

HEAD_ROWS = 1024  # positions whose logits are in memory at once


class BlockCache(NamedTuple):
    """What a block's forward pass keeps for its backward pass: each layer's cache, in order."""

    ln1: Any
    qkv: Any
    att: Any
    attproj: Any
    ln2: Any
    fc: Any
    gelu: Any
    fcproj: Any


class BodyCache(NamedTuple):
    """What body_forward keeps: the caches of the embedding, of each block and of ln_f."""

    encoder: Any
    blocks: list[BlockCache]
    lnf: Any


def block_forward(x, p, NH, layers):
    """One block: x (B, T, C) -> (B, T, C), cache; p holds the block's twelve tensors."""
    ln1, ln1_cache = layers.layernorm_forward(x, p.ln1w, p.ln1b)  # (B, T, C)
    with at_least_bf16x3():  # softmax exponentiates q @ k.T, amplifying its rounding errors
        qkv, qkv_cache = layers.matmul_forward(ln1, p.qkvw, p.qkvb)  # (B, T, 3C)
    atty, att_cache = layers.attention_forward(qkv, NH)  # (B, T, C)
    attproj, attproj_cache = layers.matmul_forward(atty, p.attprojw, p.attprojb)  # (B, T, C)
    x = layers.residual_add(x, attproj)
    ln2, ln2_cache = layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, T, C)
    fch, fc_cache = layers.matmul_forward(ln2, p.fcw, p.fcb)  # (B, T, 4C)
    act, gelu_cache = layers.gelu_forward(fch)  # (B, T, 4C)
    fcproj, fcproj_cache = layers.matmul_forward(act, p.fcprojw, p.fcprojb)  # (B, T, C)
    x = layers.residual_add(x, fcproj)
    cache = BlockCache(
        ln1=ln1_cache, qkv=qkv_cache, att=att_cache, attproj=attproj_cache,
        ln2=ln2_cache, fc=fc_cache, gelu=gelu_cache, fcproj=fcproj_cache,
    )  # fmt: skip
    return x, cache


def block_backward(dx, cache, g, add, layers):
    """dx (B, T, C) of the output -> dx of the input; the twelve gradients are written to g.

    With add they are added to what is there.
    """
    dact, *_ = layers.matmul_backward(dx, cache.fcproj, (g.fcprojw, g.fcprojb), add)  # (B, T, 4C)
    dfch = layers.gelu_backward(dact, cache.gelu)  # (B, T, 4C)
    dln2, *_ = layers.matmul_backward(dfch, cache.fc, (g.fcw, g.fcb), add)  # (B, T, C)
    dln2, *_ = layers.layernorm_backward(dln2, cache.ln2, (g.ln2w, g.ln2b), add)  # (B, T, C)
    dx = layers.residual_add(dx, dln2)
    datty, *_ = layers.matmul_backward(dx, cache.attproj, (g.attprojw, g.attprojb), add)
    dqkv = layers.attention_backward(datty, cache.att)  # (B, T, 3C)
    dln1, *_ = layers.matmul_backward(dqkv, cache.qkv, (g.qkvw, g.qkvb), add)  # (B, T, C)
    dln1, *_ = layers.layernorm_backward(dln1, cache.ln1, (g.ln1w, g.ln1b), add)  # (B, T, C)
    return layers.residual_add(dx, dln1)


def drop_recomputable(cache):
    """The BlockCache without ln1, ln2 and act, which recompute_activations restores cheaply."""
    return cache._replace(qkv=None, fc=None, fcproj=None)


def recompute_activations(cache, p, layers):
    """The complete BlockCache of the block with parameters p.

    It relies on the first entry of a layernorm's cache being its input, and gelu's cache its own.
    """
    ln1, _ = layers.layernorm_forward(cache.ln1[0], p.ln1w, p.ln1b)  # (B, T, C)
    ln2, _ = layers.layernorm_forward(cache.ln2[0], p.ln2w, p.ln2b)  # (B, T, C)
    act, _ = layers.gelu_forward(cache.gelu)  # (B, T, 4C)
    return cache._replace(
        qkv=(ln1, p.qkvw, p.qkvb), fc=(ln2, p.fcw, p.fcb), fcproj=(act, p.fcprojw, p.fcprojb)
    )


def body_forward(tokens, p, layers, recompute=False, keep=True):
    """All but the lm_head: tokens (B, T) -> lnf (B, T, C), BodyCache.

    With keep=False no block's cache is kept, for inference.
    """
    x, encoder_cache = layers.encoder_forward(tokens, p.wte, p.wpe)  # (B, T, C)
    block_caches = []
    for block in p.blocks:
        x, cache = block_forward(x, block, p.config.n_head, layers)
        if keep:
            block_caches.append(drop_recomputable(cache) if recompute else cache)
        del cache
    lnf, lnf_cache = layers.layernorm_forward(x, p.lnfw, p.lnfb)  # (B, T, C)
    return lnf, BodyCache(encoder_cache, block_caches, lnf_cache)


def body_backward(dlnf, cache, p, g, add, layers, recompute=False):
    """Backpropagate dlnf (B, T, C) into g, whose wte must hold the lm_head's gradient already.

    Consumes the cache: each block's is freed once it has been used.
    """
    dx, *_ = layers.layernorm_backward(dlnf, cache.lnf, (g.lnfw, g.lnfb), add)  # (B, T, C)
    for block, dblock in zip(reversed(p.blocks), reversed(g.blocks), strict=True):
        block_cache = cache.blocks.pop()
        if recompute:
            block_cache = recompute_activations(block_cache, block, layers)
        dx = block_backward(dx, block_cache, dblock, add, layers)
        del block_cache
    if not add:
        g.wpe[:] = 0
    layers.encoder_backward(dx, cache.encoder, (g.wte, g.wpe), add=True)


def lm_head_loss(lnf, targets, p, layers, g=None, add=False, dloss=1.0):
    """lnf (B, T, C), targets (B, T) -> loss (a float), dlnf (B, T, C) or, without g, None.

    Runs forward and backward on HEAD_ROWS positions at a time, since all logits at once would be by
    far the largest array. wte's gradient, times dloss, is written to g (with add: added to it).
    """
    rows, targets = lnf.reshape(-1, lnf.shape[-1]), targets.reshape(-1)  # (B*T, C), (B*T,)
    dlnf = None if g is None else np.zeros_like(rows)  # (B*T, C)
    count = np.count_nonzero(targets != IGNORED)
    loss = 0.0
    for i in range(0, len(rows), HEAD_ROWS):
        chunk = slice(i, i + HEAD_ROWS)
        weight = float(np.count_nonzero(targets[chunk] != IGNORED) / count)
        if weight == 0:
            continue
        chunk_loss, cache = layers.crossentropy_forward(rows[chunk], p.wte, targets[chunk])
        loss += weight * float(chunk_loss)
        if g is not None:
            dlnf[chunk], _ = layers.crossentropy_backward(weight * dloss, cache, (g.wte,), add)
            add = True
        del cache  # frees its logits before the next chunk's are made
    return loss, None if g is None else dlnf.reshape(lnf.shape)


def gpt2_loss(tokens, targets, p, layers):
    """tokens and targets (B, T) -> loss (a float)."""
    lnf, _ = body_forward(tokens, p, layers, keep=False)  # (B, T, C)
    loss, _ = lm_head_loss(lnf, targets, p, layers)
    return loss


def gpt2_forward_backward(tokens, targets, p, g, layers, dloss=1.0, add=False, recompute=False):
    """tokens and targets (B, T) -> loss (a float); dloss times its gradients are written to g.

    With add they are added to what is there.
    """
    lnf, cache = body_forward(tokens, p, layers, recompute)  # (B, T, C)
    loss, dlnf = lm_head_loss(lnf, targets, p, layers, g, add, dloss)
    body_backward(dlnf, cache, p, g, add, layers, recompute)
    return loss


def activation_bytes(config, B, T, recompute=False):
    """Estimate the peak bytes of activations in a forward and backward pass, in float32.

    Per position and in units of C, a block keeps x, qkv (3), atty, the x after attention and fch
    (4): 10; without recompute also ln1, ln2 and act (4): 16. The backward pass adds temporaries,
    dx, dact (4), dfch (4), dln2, dqkv (3), ...: about 18, or 24 with what is recomputed.
    """
    kept, temporary = (10, 24) if recompute else (16, 18)
    return 4 * B * T * config.n_embd * (config.n_layer * kept + temporary)


def logit_bytes(config, B, T):
    """The bytes of the logits that are in memory at once, in float32."""
    return 4 * min(B * T, HEAD_ROWS) * config.vocab_size

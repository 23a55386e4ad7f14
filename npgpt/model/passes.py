"""GPT-2's forward pass and backward pass, as mirror images.

p holds the parameters, g their gradients. `layers` is the set of layer functions to compute with:
npgpt.layers, the NumPy reference, or npgpt.kernels, its compiled counterpart.
"""

from typing import Any, NamedTuple

import numpy as np

from npgpt.core.precision import at_least_bf16x3
from npgpt.errors import ArgumentError
from npgpt.layers.crossentropy import IGNORED
from npgpt.layers.dropout import Drop, key_of

HEAD_ROWS = 1024  # positions whose logits are in memory at once
TEMPORARY_BLOCK = 30  # C numbers a position: what recompute="blocks" needs for one block


class BlockDrops(NamedTuple):
    """What is dropped out in a block: a Drop for each place, or none; att holds one or nothing."""

    att: tuple[Drop, ...] = ()
    attproj: Drop | None = None
    fcproj: Drop | None = None


class Dropout(NamedTuple):
    """The dropout of one pass: a fraction `rate` by a key; 0 is none. Its places are GPT-2's.

    before: how many sequences of the same batch come before those of the pass, as in Drop.
    """

    rate: float = 0.0
    key: int = 0
    before: int = 0

    def embedding(self):
        """What is dropped out of the embedding: a Drop, or None."""
        return self._at(0) if self.rate else None

    def block(self, layer):
        """What is dropped out in this layer's block."""
        if not self.rate:
            return NO_DROPS
        att, attproj, fcproj = (self._at(1 + 3 * layer + i) for i in range(3))
        return BlockDrops((att,), attproj, fcproj)

    def _at(self, site):
        return Drop(self.rate, self.key, site, self.before)


RECOMPUTE = False, True, "blocks"  # what the backward pass computes again, see kept_of
NO_DROPS, NO_DROPOUT = BlockDrops(), Dropout()


def make_dropout(rate, seed, before=0):
    """The Dropout of a rate and a seed, an integer or several; ArgumentError if one cannot be.

    before: as in Dropout.
    """
    if not 0 <= rate < 1:
        raise ArgumentError(f"dropout must be at least 0 and below 1, not {rate!r}")
    try:
        return Dropout(rate, key_of(seed), before) if rate else NO_DROPOUT
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"seed must be an integer of at least 0, or several, not {seed!r}"
        ) from error


class BlockCache(NamedTuple):
    """What a block's forward pass keeps for its backward pass: each layer's cache, in order."""

    ln1: Any
    qkv: Any
    att: Any
    attproj: Any
    attproj_drop: Any
    ln2: Any
    fc: Any
    gelu: Any
    fcproj: Any
    fcproj_drop: Any


class BodyCache(NamedTuple):
    """What body_forward keeps: the caches of the embedding, of each block (kept_of) and of ln_f."""

    encoder: Any
    encoder_drop: Any
    blocks: list[Any]
    lnf: Any


def drop_forward(x, drop, layers):
    """Dropout of x (B, T, C) -> (B, T, C), cache; without a Drop x itself."""
    return (x, None) if drop is None else layers.dropout_forward(x, drop)


def drop_backward(dout, cache, layers):
    """dout (B, T, C) -> dx (B, T, C), of drop_forward."""
    return dout if cache is None else layers.dropout_backward(dout, cache)


def block_forward(x, p, NH, layers, drops=NO_DROPS):
    """One block: x (B, T, C) -> (B, T, C), cache; p holds the block's twelve tensors."""
    ln1, ln1_cache = layers.layernorm_forward(x, p.ln1w, p.ln1b)  # (B, T, C)
    with at_least_bf16x3():  # softmax exponentiates q @ k.T, amplifying its rounding errors
        qkv, qkv_cache = layers.matmul_forward(ln1, p.qkvw, p.qkvb)  # (B, T, 3C)
    atty, att_cache = layers.attention_forward(qkv, NH, *drops.att)  # (B, T, C)
    attproj, attproj_cache = layers.matmul_forward(atty, p.attprojw, p.attprojb)  # (B, T, C)
    attproj, attproj_drop = drop_forward(attproj, drops.attproj, layers)  # (B, T, C)
    x = layers.residual_add(x, attproj)
    ln2, ln2_cache = layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, T, C)
    fch, fc_cache = layers.matmul_forward(ln2, p.fcw, p.fcb)  # (B, T, 4C)
    act, gelu_cache = layers.gelu_forward(fch)  # (B, T, 4C)
    fcproj, fcproj_cache = layers.matmul_forward(act, p.fcprojw, p.fcprojb)  # (B, T, C)
    fcproj, fcproj_drop = drop_forward(fcproj, drops.fcproj, layers)  # (B, T, C)
    x = layers.residual_add(x, fcproj)
    cache = BlockCache(
        ln1=ln1_cache, qkv=qkv_cache, att=att_cache, attproj=attproj_cache,
        attproj_drop=attproj_drop, ln2=ln2_cache, fc=fc_cache, gelu=gelu_cache,
        fcproj=fcproj_cache, fcproj_drop=fcproj_drop,
    )  # fmt: skip
    return x, cache


def block_backward(dx, cache, g, add, layers):
    """dx (B, T, C) of the output -> dx of the input; the twelve gradients are written to g.

    With add they are added to what is there.
    """
    dfcproj = drop_backward(dx, cache.fcproj_drop, layers)  # (B, T, C)
    dact, *_ = layers.matmul_backward(dfcproj, cache.fcproj, (g.fcprojw, g.fcprojb), add)
    dfch = layers.gelu_backward(dact, cache.gelu)  # (B, T, 4C)
    dln2, *_ = layers.matmul_backward(dfch, cache.fc, (g.fcw, g.fcb), add)  # (B, T, C)
    del dact, dfch  # dqkv takes their memory
    dln2, *_ = layers.layernorm_backward(dln2, cache.ln2, (g.ln2w, g.ln2b), add)  # (B, T, C)
    dx = layers.residual_add(dx, dln2)
    dattproj = drop_backward(dx, cache.attproj_drop, layers)  # (B, T, C)
    datty, *_ = layers.matmul_backward(dattproj, cache.attproj, (g.attprojw, g.attprojb), add)
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


def check_recompute(recompute):
    """Raise ArgumentError unless this is one of RECOMPUTE."""
    if recompute not in RECOMPUTE:
        known = ", ".join(map(repr, RECOMPUTE))
        raise ArgumentError(f"recompute must be one of {known}, not {recompute!r}")


def kept_of(cache, recompute):
    """What is kept of a block between the passes: its BlockCache, as `recompute` says.

    False: all of it; True: what recompute_activations needs; "blocks": the block's input (B, T, C)
    alone, which is the first entry of the cache of its first layernorm.
    """
    if recompute == "blocks":
        return cache.ln1[0]
    return drop_recomputable(cache) if recompute else cache


class WithoutProduct:
    """Layer functions whose matmul_forward leaves out the product with w: its output is zeros.

    So a block is computed again without its last product, whose output nothing needs.
    """

    def __init__(self, layers, w):
        self._layers, self._w = layers, w

    def __getattr__(self, name):
        return getattr(self._layers, name)

    def matmul_forward(self, x, w, b=None):
        """As of the layers; it relies on the cache of a matmul being its arguments."""
        if w is not self._w:
            return self._layers.matmul_forward(x, w, b)
        return np.zeros((*x.shape[:-1], b.size), x.dtype), (x, w, b)


def restored(kept, p, NH, layers, recompute, drops):
    """The complete BlockCache of the block with parameters p, of what kept_of has kept."""
    if recompute == "blocks":
        _, cache = block_forward(kept, p, NH, WithoutProduct(layers, p.fcprojw), drops)
        return cache
    return recompute_activations(kept, p, layers) if recompute else kept


def body_forward(tokens, p, layers, recompute=False, keep=True, dropout=NO_DROPOUT):
    """All but the lm_head: tokens (B, T) -> lnf (B, T, C), BodyCache.

    With keep=False no block's cache is kept, for inference. recompute: as in kept_of.
    """
    x, encoder_cache = layers.encoder_forward(tokens, p.wte, p.wpe)  # (B, T, C)
    x, encoder_drop = drop_forward(x, dropout.embedding(), layers)  # (B, T, C)
    block_caches = []
    for layer, block in enumerate(p.blocks):
        x, cache = block_forward(x, block, p.config.n_head, layers, dropout.block(layer))
        if keep:
            block_caches.append(kept_of(cache, recompute))
        del cache
    lnf, lnf_cache = layers.layernorm_forward(x, p.lnfw, p.lnfb)  # (B, T, C)
    return lnf, BodyCache(encoder_cache, encoder_drop, block_caches, lnf_cache)


def body_backward(
    dlnf, cache, p, g, add, layers, recompute=False, dropout=NO_DROPOUT, block_done=None
):
    """Backpropagate dlnf (B, T, C) into g, whose wte must hold the lm_head's gradient already.

    recompute and dropout are those of body_forward. Consumes the cache: each block's is freed once
    it has been used. block_done(l) is called when the gradients of block l are in g, from the last
    block to the first.
    """
    dx, *_ = layers.layernorm_backward(dlnf, cache.lnf, (g.lnfw, g.lnfb), add)  # (B, T, C)
    for layer, block in reversed([*enumerate(p.blocks)]):
        kept, drops = cache.blocks.pop(), dropout.block(layer)
        block_cache = restored(kept, block, p.config.n_head, layers, recompute, drops)
        del kept
        dx = block_backward(dx, block_cache, g.blocks[layer], add, layers)
        del block_cache
        if block_done is not None:
            block_done(layer)
    dx = drop_backward(dx, cache.encoder_drop, layers)  # (B, T, C)
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


def gpt2_loss(tokens, targets, p, layers, dropout=NO_DROPOUT):
    """tokens and targets (B, T) -> loss (a float)."""
    lnf, _ = body_forward(tokens, p, layers, keep=False, dropout=dropout)  # (B, T, C)
    loss, _ = lm_head_loss(lnf, targets, p, layers)
    return loss


def gpt2_forward_backward(
    tokens, targets, p, g, layers, dloss=1.0, add=False, recompute=False, dropout=NO_DROPOUT,
    block_done=None,
):  # fmt: skip
    """tokens and targets (B, T) -> loss (a float); dloss times its gradients are written to g.

    With add they are added to what is there. block_done: as in body_backward.
    """
    lnf, cache = body_forward(tokens, p, layers, recompute, dropout=dropout)  # (B, T, C)
    loss, dlnf = lm_head_loss(lnf, targets, p, layers, g, add, dloss)
    del lnf  # the backward pass does not need it
    body_backward(dlnf, cache, p, g, add, layers, recompute, dropout, block_done)
    return loss


def activation_bytes(config, B, T, recompute=False):
    """Estimate the peak bytes of activations in a forward and backward pass, in float32.

    Per position and in units of C, a block keeps x, qkv (3), atty, the x after attention and fch
    (4): 10; without recompute also ln1, ln2 and act (4): 16; with "blocks" only x. The backward
    pass adds temporaries, dx, dact (4), dfch (4), dln2, ...: about 14, for dqkv takes dact's
    memory; or 24 with what is recomputed, or 30 with a whole block. Dropout keeps nothing, and
    takes one or two temporaries more.
    """
    kept, temporary = {False: (16, 14), True: (10, 24), "blocks": (1, TEMPORARY_BLOCK)}[recompute]
    return 4 * B * T * config.n_embd * (config.n_layer * kept + temporary)


def logit_bytes(config, B, T, recompute=False):
    """The bytes of the logits that are in memory at once, in float32.

    With recompute="blocks" their memory is free again before the temporaries of a block need it:
    then they count only as far as they take more.
    """
    size = 4 * min(B * T, HEAD_ROWS) * config.vocab_size
    freed = 4 * B * T * config.n_embd * TEMPORARY_BLOCK if recompute == "blocks" else 0
    return max(0, size - freed)

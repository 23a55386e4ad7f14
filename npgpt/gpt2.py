"""GPT-2: the forward pass and the backward pass as mirror images, and the model that holds both.

`layers` is the set of layer functions to compute with: npgpt.layers, the textbook, or
npgpt.kernels, its compiled twin.
"""

import importlib

import numpy as np

from npgpt.checkpoint import read_checkpoint
from npgpt.errors import ArgumentError
from npgpt.parameters import Parameters

BACKENDS = {"numpy": "npgpt.layers", "numba": "npgpt.kernels"}


def block_forward(x, p, NH, layers):
    """One block: x (B, T, C) -> (B, T, C), cache; p holds the block's twelve tensors."""
    ln1, ln1_cache = layers.layernorm_forward(x, p.ln1w, p.ln1b)  # (B, T, C)
    qkv, qkv_cache = layers.matmul_forward(ln1, p.qkvw, p.qkvb)  # (B, T, 3C)
    atty, att_cache = layers.attention_forward(qkv, NH)  # (B, T, C)
    attproj, attproj_cache = layers.matmul_forward(atty, p.attprojw, p.attprojb)  # (B, T, C)
    x = x + attproj
    ln2, ln2_cache = layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, T, C)
    fch, fc_cache = layers.matmul_forward(ln2, p.fcw, p.fcb)  # (B, T, 4C)
    act, gelu_cache = layers.gelu_forward(fch)  # (B, T, 4C)
    fcproj, fcproj_cache = layers.matmul_forward(act, p.fcprojw, p.fcprojb)  # (B, T, C)
    x = x + fcproj
    caches = (ln1_cache, qkv_cache, att_cache, attproj_cache)
    return x, (*caches, ln2_cache, fc_cache, gelu_cache, fcproj_cache)


def block_backward(dx, cache, g, layers):
    """dx (B, T, C) of the block's output -> dx of its input; the twelve gradients go into g."""
    ln1_cache, qkv_cache, att_cache, attproj_cache, *caches = cache
    ln2_cache, fc_cache, gelu_cache, fcproj_cache = caches
    dact, g.fcprojw[:], g.fcprojb[:] = layers.matmul_backward(dx, fcproj_cache)  # (B, T, 4C)
    dfch = layers.gelu_backward(dact, gelu_cache)  # (B, T, 4C)
    dln2, g.fcw[:], g.fcb[:] = layers.matmul_backward(dfch, fc_cache)  # (B, T, C)
    dresidual, g.ln2w[:], g.ln2b[:] = layers.layernorm_backward(dln2, ln2_cache)  # (B, T, C)
    dx = dx + dresidual
    datty, g.attprojw[:], g.attprojb[:] = layers.matmul_backward(dx, attproj_cache)  # (B, T, C)
    dqkv = layers.attention_backward(datty, att_cache)  # (B, T, 3C)
    dln1, g.qkvw[:], g.qkvb[:] = layers.matmul_backward(dqkv, qkv_cache)  # (B, T, C)
    dresidual, g.ln1w[:], g.ln1b[:] = layers.layernorm_backward(dln1, ln1_cache)  # (B, T, C)
    return dx + dresidual


def body_forward(tokens, p, layers):
    """All but the head: tokens (B, T) -> lnf (B, T, C), cache."""
    x, encoder_cache = layers.encoder_forward(tokens, p.wte, p.wpe)  # (B, T, C)
    block_caches = []
    for block in p.blocks:
        x, cache = block_forward(x, block, p.config.n_head, layers)
        block_caches.append(cache)
    lnf, lnf_cache = layers.layernorm_forward(x, p.lnfw, p.lnfb)  # (B, T, C)
    return lnf, (encoder_cache, block_caches, lnf_cache)


def body_backward(dlnf, cache, g, layers):
    """dlnf (B, T, C) -> nothing; wte's gradient is added to what the head left in g.wte."""
    encoder_cache, block_caches, lnf_cache = cache
    dx, g.lnfw[:], g.lnfb[:] = layers.layernorm_backward(dlnf, lnf_cache)  # (B, T, C)
    for block in reversed(g.blocks):
        dx = block_backward(dx, block_caches.pop(), block, layers)  # what was popped is freed
    dwte, g.wpe[:] = layers.encoder_backward(dx, encoder_cache)  # (V, C)
    g.wte += dwte


def gpt2_forward(tokens, targets, p, layers):
    """tokens and targets (B, T) -> loss (a scalar), cache."""
    lnf, body_cache = body_forward(tokens, p, layers)  # (B, T, C)
    loss, head_cache = layers.crossentropy_forward(lnf, p.wte, targets)
    return loss, (body_cache, head_cache)


def gpt2_backward(dloss, cache, g, layers):
    """dloss, a scalar -> nothing; the sixteen gradients go into g. The cache is used up."""
    body_cache, head_cache = cache
    dlnf, g.wte[:] = layers.crossentropy_backward(dloss, head_cache)  # (B, T, C)
    body_backward(dlnf, body_cache, g, layers)


class GPT2:
    """A GPT-2 with its parameters and, from their first use on, its gradients and moments.

    A training step is `loss(tokens, targets)`, `backward()`, `update(lr)`. It computes in the
    dtype of its parameters. `params`, `grads` and the moments `m` and `v` are Parameters (the last
    three None until they are needed), `step` counts the updates.
    """

    def __init__(self, config, seed=0, backend="numpy", params=None):
        """A model of the given GPT2Config with new weights from seed, or on Parameters at hand."""
        if backend not in BACKENDS:
            raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
        if params is not None and params.config != config:
            raise ArgumentError(f"params must be of the model's {config}, not of {params.config}")
        self.config = config
        self.layers = importlib.import_module(BACKENDS[backend])
        self.params = Parameters.init(config, seed) if params is None else params
        self.grads = self.m = self.v = None
        self.step = 0
        self._cache = None

    @classmethod
    def from_checkpoint(cls, path, backend="numpy"):
        """Read an llm.c model file; raises FileError where it is none or is damaged."""
        params = read_checkpoint(path)
        return cls(params.config, backend=backend, params=params)

    def forward(self, tokens):
        """tokens (B, T), T up to block_size -> logits (B, T, V)."""
        tokens = self._check("tokens", tokens, lowest=0)
        lnf, _ = body_forward(tokens, self.params, self.layers)
        logits, _ = self.layers.matmul_forward(lnf, self.params.wte)
        return logits

    def loss(self, tokens, targets):
        """tokens and targets (B, T) -> the mean cross-entropy in nats, as a float.

        Targets of -1 are left out of the mean. What `backward` needs is kept until then.
        """
        tokens = self._check("tokens", tokens, lowest=0)
        targets = self._check("targets", targets, lowest=-1)
        if targets.shape != tokens.shape:
            raise ArgumentError(
                f"targets must be {tokens.shape} as tokens are, not {targets.shape}"
            )
        if (targets == -1).all():
            raise ArgumentError("targets are all -1: at least one has to count")
        self._cache = None  # the last step's activations make room for this one's
        loss, self._cache = gpt2_forward(tokens, targets, self.params, self.layers)
        return float(loss)

    def backward(self):
        """Write the gradients of the last `loss` into `grads`, over what was there."""
        if self._cache is None:
            raise ArgumentError("backward() comes once after each loss(tokens, targets)")
        if self.grads is None:
            self.grads = self._like_params()
        cache, self._cache = self._cache, None
        gpt2_backward(1.0, cache, self.grads, self.layers)

    def update(self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        """One step of AdamW on every parameter, with the gradients of the last `backward`."""
        if self.grads is None:
            raise ArgumentError("update() comes after backward()")
        if self.m is None:
            self.m, self.v = self._like_params(), self._like_params()
        self.step += 1
        self.layers.adamw_update(
            self.params.flat, self.grads.flat, self.m.flat, self.v.flat,
            self.step, lr, *betas, eps, weight_decay,
        )  # fmt: skip

    def generate(self, tokens, max_new_tokens, temperature=1.0, top_k=None, seed=None):
        """Continue tokens (B, T) -> (B, T + max_new_tokens).

        The model sees the last block_size tokens. Each new one is drawn from the softmax of
        logits / temperature, among the top_k likeliest if that is given; temperature 0 takes the
        likeliest. The same seed draws the same tokens. Raises ArgumentError where the logits are
        not finite: the model has diverged.
        """
        if not 0 <= temperature < float("inf"):
            raise ArgumentError(f"temperature must be a finite number from 0, not {temperature!r}")
        if top_k is not None and top_k < 1:
            raise ArgumentError(f"top_k must be at least 1, not {top_k!r}")
        if max_new_tokens < 0:
            raise ArgumentError(f"max_new_tokens must be at least 0, not {max_new_tokens!r}")
        tokens = self._check("tokens", tokens, lowest=0, longest=None)
        rng = np.random.default_rng(seed)
        for _ in range(max_new_tokens):
            context = tokens[:, -self.config.block_size :]
            lnf, _ = body_forward(context, self.params, self.layers)
            logits, _ = self.layers.matmul_forward(lnf[:, -1], self.params.wte)  # (B, V)
            tokens = np.concatenate([tokens, draw(logits, temperature, top_k, rng)], axis=1)
        return tokens

    def _like_params(self):
        return Parameters(self.config, dtype=self.params.flat.dtype)

    def _check(self, name, ids, lowest, longest="block_size"):
        try:
            ids = np.asarray(ids)
        except ValueError:  # lists of different lengths
            ids = np.asarray(ids, dtype=object)
        if ids.ndim != 2 or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
            raise ArgumentError(
                f"{name} must be integers of shape (B, T), not {ids.dtype} of shape {ids.shape}"
            )
        if longest and ids.shape[1] > self.config.block_size:
            raise ArgumentError(
                f"{name} can be {self.config.block_size} long, the block_size, not {ids.shape[1]}"
            )
        V = self.config.vocab_size
        if ids.min() < lowest or ids.max() >= V:
            raise ArgumentError(
                f"{name} must be from {lowest} to {V - 1}, but run from {ids.min()} to {ids.max()}"
            )
        return ids.astype(np.int64)


def draw(logits, temperature, top_k, rng):
    """Draw one token a row: logits (B, V) -> tokens (B, 1)."""
    if not np.isfinite(logits).all():
        raise ArgumentError("the model's logits must be finite: it has diverged")
    if temperature == 0:
        return logits.argmax(-1, keepdims=True)
    logits = (logits - logits.max(-1, keepdims=True)).astype(np.float64) / temperature  # (B, V)
    if top_k is not None and top_k < logits.shape[-1]:
        beyond = np.argpartition(-logits, top_k - 1, axis=-1)[:, top_k:]  # (B, V - top_k)
        np.put_along_axis(logits, beyond, -np.inf, axis=-1)
    cumulated = np.exp(logits).cumsum(-1)  # (B, V)
    point = rng.random((len(logits), 1)) * cumulated[:, -1:]  # (B, 1), below the whole
    return (cumulated <= point).sum(-1, keepdims=True)

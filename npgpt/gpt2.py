"""GPT-2: the forward pass and the backward pass as mirror images, and the model that holds both.

`layers` is the set of layer functions to compute with: npgpt.layers, the textbook, or
npgpt.kernels, its compiled twin.
"""

import importlib
import weakref
from contextlib import contextmanager

import numpy as np

from npgpt.checkpoint import read_checkpoint
from npgpt.errors import ArgumentError
from npgpt.generate import stream
from npgpt.layers.crossentropy import IGNORED
from npgpt.parameters import Parameters
from npgpt.precision import check_precision, computing_in, finer
from npgpt.threads import BYTE, threads

BACKENDS = {"numpy": "npgpt.layers", "numba": "npgpt.kernels"}
HEAD_ROWS = 1024  # positions whose logits are in memory at the same time


def block_forward(x, p, NH, layers):
    """One block: x (B, T, C) -> (B, T, C), cache; p holds the block's twelve tensors."""
    ln1, ln1_cache = layers.layernorm_forward(x, p.ln1w, p.ln1b)  # (B, T, C)
    with finer():  # of q @ k.T exponentials are made
        qkv, qkv_cache = layers.matmul_forward(ln1, p.qkvw, p.qkvb)  # (B, T, 3C)
    atty, att_cache = layers.attention_forward(qkv, NH)  # (B, T, C)
    attproj, attproj_cache = layers.matmul_forward(atty, p.attprojw, p.attprojb)  # (B, T, C)
    x = layers.residual_add(x, attproj)
    ln2, ln2_cache = layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, T, C)
    fch, fc_cache = layers.matmul_forward(ln2, p.fcw, p.fcb)  # (B, T, 4C)
    act, gelu_cache = layers.gelu_forward(fch)  # (B, T, 4C)
    fcproj, fcproj_cache = layers.matmul_forward(act, p.fcprojw, p.fcprojb)  # (B, T, C)
    x = layers.residual_add(x, fcproj)
    caches = (ln1_cache, qkv_cache, att_cache, attproj_cache)
    return x, (*caches, ln2_cache, fc_cache, gelu_cache, fcproj_cache)


def block_backward(dx, cache, g, add, layers):
    """dx (B, T, C) of the block's output -> dx of its input; the twelve gradients go into g.

    They are written there or, with add, added to what is there.
    """
    ln1_cache, qkv_cache, att_cache, attproj_cache, *caches = cache
    ln2_cache, fc_cache, gelu_cache, fcproj_cache = caches
    dact, *_ = layers.matmul_backward(dx, fcproj_cache, (g.fcprojw, g.fcprojb), add)  # (B, T, 4C)
    dfch = layers.gelu_backward(dact, gelu_cache)  # (B, T, 4C)
    dln2, *_ = layers.matmul_backward(dfch, fc_cache, (g.fcw, g.fcb), add)  # (B, T, C)
    dln2, *_ = layers.layernorm_backward(dln2, ln2_cache, (g.ln2w, g.ln2b), add)  # (B, T, C)
    dx = layers.residual_add(dx, dln2)
    datty, *_ = layers.matmul_backward(dx, attproj_cache, (g.attprojw, g.attprojb), add)
    dqkv = layers.attention_backward(datty, att_cache)  # (B, T, 3C)
    dln1, *_ = layers.matmul_backward(dqkv, qkv_cache, (g.qkvw, g.qkvb), add)  # (B, T, C)
    dln1, *_ = layers.layernorm_backward(dln1, ln1_cache, (g.ln1w, g.ln1b), add)  # (B, T, C)
    return layers.residual_add(dx, dln1)


def forget(cache):
    """A block's cache without ln1, ln2 and act, which `recall` makes again for little."""
    ln1_cache, _, att_cache, attproj_cache, ln2_cache, _, gelu_cache, _ = cache
    return ln1_cache, None, att_cache, attproj_cache, ln2_cache, None, gelu_cache, None


def recall(cache, p, layers):
    """The whole cache of the block with the parameters p from what `forget` has left of it."""
    ln1_cache, _, att_cache, attproj_cache, ln2_cache, _, gelu_cache, _ = cache
    ln1, _ = layers.layernorm_forward(ln1_cache[0], p.ln1w, p.ln1b)  # (B, T, C)
    ln2, _ = layers.layernorm_forward(ln2_cache[0], p.ln2w, p.ln2b)  # (B, T, C)
    act, _ = layers.gelu_forward(gelu_cache)  # (B, T, 4C)
    caches = (ln1_cache, (ln1, p.qkvw, p.qkvb), att_cache, attproj_cache)
    return (*caches, ln2_cache, (ln2, p.fcw, p.fcb), gelu_cache, (act, p.fcprojw, p.fcprojb))


def body_forward(tokens, p, layers, recompute=False, keep=True):
    """All but the head: tokens (B, T) -> lnf (B, T, C), cache; the blocks' only with keep."""
    x, encoder_cache = layers.encoder_forward(tokens, p.wte, p.wpe)  # (B, T, C)
    block_caches = []
    for block in p.blocks:
        x, cache = block_forward(x, block, p.config.n_head, layers)
        if keep:
            block_caches.append(forget(cache) if recompute else cache)
        del cache
    lnf, lnf_cache = layers.layernorm_forward(x, p.lnfw, p.lnfb)  # (B, T, C)
    return lnf, (encoder_cache, block_caches, lnf_cache)


def body_backward(dlnf, cache, p, g, add, layers, recompute=False):
    """dlnf (B, T, C) -> nothing; the gradients go into g, where wte's has the head's share already.

    The cache is used up: what a block needed is free again after it.
    """
    encoder_cache, block_caches, lnf_cache = cache
    dx, *_ = layers.layernorm_backward(dlnf, lnf_cache, (g.lnfw, g.lnfb), add)  # (B, T, C)
    for block, dblock in zip(reversed(p.blocks), reversed(g.blocks), strict=True):
        cache = block_caches.pop()
        dx = block_backward(
            dx, recall(cache, block, layers) if recompute else cache, dblock, add, layers
        )
    if not add:
        g.wpe[:] = 0
    layers.encoder_backward(dx, encoder_cache, (g.wte, g.wpe), add=True)


def head(lnf, targets, p, layers, g=None, add=False, dloss=1.0):
    """lnf (B, T, C), targets (B, T) -> loss (a float), dlnf (B, T, C) or, without g, None.

    It goes forward and backward with HEAD_ROWS positions at a time, since the logits of all would
    take far more memory than any other array. wte's gradient goes into g.
    """
    rows, targets = lnf.reshape(-1, lnf.shape[-1]), targets.reshape(-1)  # (B*T, C), (B*T,)
    dlnf = None if g is None else np.zeros_like(rows)  # (B*T, C)
    count = np.count_nonzero(targets != IGNORED)
    loss = 0.0
    for i in range(0, len(rows), HEAD_ROWS):
        part = slice(i, i + HEAD_ROWS)
        share = float(np.count_nonzero(targets[part] != IGNORED) / count)
        if share == 0:
            continue
        part_loss, cache = layers.crossentropy_forward(rows[part], p.wte, targets[part])
        loss += share * float(part_loss)
        if g is not None:
            dlnf[part], _ = layers.crossentropy_backward(share * dloss, cache, (g.wte,), add)
            add = True
        del cache  # its logits make room for the next ones
    return loss, None if g is None else dlnf.reshape(lnf.shape)


def gpt2_loss(tokens, targets, p, layers):
    """tokens and targets (B, T) -> loss (a float)."""
    lnf, _ = body_forward(tokens, p, layers, keep=False)  # (B, T, C)
    loss, _ = head(lnf, targets, p, layers)
    return loss


def gpt2_forward_backward(tokens, targets, p, g, layers, dloss=1.0, add=False, recompute=False):
    """tokens and targets (B, T) -> loss (a float); dloss times its gradients go into g.

    They are written there or, with add, added to what is there.
    """
    lnf, cache = body_forward(tokens, p, layers, recompute)  # (B, T, C)
    loss, dlnf = head(lnf, targets, p, layers, g, add, dloss)
    body_backward(dlnf, cache, p, g, add, layers, recompute)
    return loss


class GPT2:
    """A GPT-2 with its parameters and, from their first use on, its gradients and moments.

    A training step is `forward_backward(tokens, targets)` and `update(lr)`. It computes in the
    dtype of its parameters. `params`, `grads` and the moments `m` and `v` are Parameters (the last
    three None until they are needed), `step` counts the updates. `tokenizer` is the one it goes
    with, where that is known, or None.
    """

    def __init__(
        self, config, seed=0, backend="numba", params=None, recompute=False, precision="fp32"
    ):
        """A model of the given GPT2Config with new weights from seed, or on Parameters at hand.

        With recompute, the backward pass makes the outputs of gelu and the layernorms in front of
        the matmuls again, and the forward pass need not keep them: three eighths of what it keeps.

        precision is that of the factors of matrix products: "fp32", or on CPUs with units for it
        "bf16", eight bits of a number's 24, or "bf16x3", two of them for each number and three
        products (without AMX tiles: float32). All else, sums, weights and moments too, is float32.
        "int8" is for `generate`: for up to 8 rows at a time, and prompts of up to 8 tokens, the
        matrices that it reads for each token are of 8 bits, each row with a scale of its own. All
        else is as in "fp32".
        """
        if backend not in BACKENDS:
            raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
        check_precision(precision)
        if precision != "fp32" and backend != "numba":
            raise ArgumentError(f"precision {precision} takes the backend numba, not {backend}")
        if params is not None and params.config != config:
            raise ArgumentError(f"params must be of the model's {config}, not of {params.config}")
        self.config = config
        self.layers = importlib.import_module(BACKENDS[backend])
        self.recompute, self.precision = recompute, precision
        self._compiled = backend == "numba"
        if self._compiled:
            # The kernels keep memory from step to step, for all models. With this one it goes;
            # another one takes what it needs anew.
            weakref.finalize(self, self.layers.buffers.free)
        self.params = Parameters.init(config, seed) if params is None else params
        self.grads = self.m = self.v = self.tokenizer = None
        self.step = 0

    @classmethod
    def from_checkpoint(cls, path, **options):
        """Read an llm.c model file; raises FileError where it is none or is damaged.

        The options are those of GPT2: backend, recompute and precision.
        """
        params = read_checkpoint(path)
        return cls(params.config, params=params, **options)

    @classmethod
    def from_pretrained(cls, where, **options):
        """A model with its tokenizer, where that is known.

        where is a published name (gpt2, gpt2-medium, ...; downloaded once), an llm.c model file, a
        Hugging Face folder or .safetensors file, or the folder of a training run. The options are
        those of GPT2: backend, recompute and precision.
        """
        from npgpt.pretrained import load_model
        from npgpt.tokenizer import tokenizer_from

        params, description = load_model(where)
        model = cls(params.config, params=params, **options)
        model.tokenizer = description and tokenizer_from(description)
        return model

    def forward(self, tokens):
        """tokens (B, T), T up to block_size -> logits (B, T, V)."""
        tokens = self._check("tokens", tokens, lowest=0)
        with self._computing(2 * tokens.size):
            lnf, _ = body_forward(tokens, self.params, self.layers, keep=False)
            logits, _ = self.layers.matmul_forward(lnf, self.params.wte)
        return logits

    def loss(self, tokens, targets):
        """tokens and targets (B, T) -> the mean cross-entropy in nats, as a float.

        Targets of -1 are left out of the mean. No gradients: that is `forward_backward`.
        """
        tokens, targets = self._check_batch(tokens, targets)
        with self._computing(2 * tokens.size):
            return gpt2_loss(tokens, targets, self.params, self.layers)

    def forward_backward(self, tokens, targets, dloss=1.0, add=False):
        """As `loss`, and leaves dloss times the loss's gradients in `grads`, over what was there.

        With add, they are added to what was there: call it with dloss=1/n for n micro-batches, with
        add from the second one on.
        """
        tokens, targets = self._check_batch(tokens, targets)
        if self.grads is None:
            if add:
                raise ArgumentError("add=True comes after a first forward_backward without it")
            self.grads = self._like_params()
        with self._computing(6 * tokens.size):
            return gpt2_forward_backward(
                tokens, targets, self.params, self.grads, self.layers, dloss, add, self.recompute
            )

    def gradient_norm(self):
        """The Euclidean norm of all that is in `grads`, as a float."""
        if self.grads is None:
            raise ArgumentError("gradient_norm() comes after forward_backward()")
        with self._computing(4 * BYTE):
            return float(self.layers.gradient_norm(self.grads.flat))

    def update(
        self, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, clip=None, norm=None, decay="all"
    ):
        """One step of AdamW on every parameter, with the gradients in `grads`.

        Given clip, the gradients count as scaled down to that norm, all together, where theirs is
        larger, and it returns what their norm was; norm is that of gradient_norm() where it is
        known already. decay is what weight_decay applies to: "all", or "matrices" without biases
        and layernorms.
        """
        if self.grads is None:
            raise ArgumentError("update() comes after forward_backward()")
        if decay not in ("all", "matrices"):
            raise ArgumentError(f"decay must be one of all, matrices, not {decay!r}")
        if clip is not None and not clip > 0:
            raise ArgumentError(f"clip must be a number above 0, not {clip!r}")
        if self.m is None:
            self.m, self.v = self._like_params(), self._like_params()
        self.step += 1
        scale = 1.0
        if clip is not None:
            norm = self.gradient_norm() if norm is None else norm
            scale = 1.0 if norm + 1e-6 <= clip else clip / (norm + 1e-6)  # as PyTorch does
        buffers = self.params.flat, self.grads.flat, self.m.flat, self.v.flat
        spans = [(slice(None), True)] if decay == "all" else self.params.spans()
        with self._computing(28 * BYTE):
            for span, decayed in spans:
                self.layers.adamw_update(
                    *(buffer[span] for buffer in buffers),
                    self.step, lr, *betas, eps, weight_decay if decayed else 0.0, scale,
                )  # fmt: skip
        return norm

    def generate(
        self, tokens, max_new_tokens, temperature=1.0, top_k=None, top_p=None,
        repetition_penalty=1.0, stop=None, seed=None, cache=True,
    ):  # fmt: skip
        """Continue tokens (B, T) -> (B, T + max_new_tokens), fewer where all rows have ended.

        Each new token is drawn from the softmax of logits / temperature, among the top_k likeliest
        and among the fewest whose probabilities add up to top_p; temperature 0 takes the likeliest.
        The logits of the tokens that a row has are divided by repetition_penalty or, below 0,
        multiplied (Keskar et al. 2019). A row that has drawn stop goes on with it to the end. The
        same seed draws the same tokens; several samples are rows that begin alike.

        The model sees all tokens while they fit into block_size; when they have outgrown it, it
        goes on with its last half of them. The keys and values of what it sees are kept; without
        cache, each token costs a forward pass over all of it. Raises ArgumentError where the logits
        are not finite: the model has diverged.
        """
        options = temperature, top_k, top_p, repetition_penalty, stop, seed, cache
        new = stream(self, tokens, max_new_tokens, *options)
        return np.column_stack([np.asarray(tokens, np.int64), *new])

    @contextmanager
    def _computing(self, work):
        """Inside, the kernels have this precision, and threads for so many flops a parameter."""
        if self._compiled:
            with threads(work * self.params.flat.size), computing_in(self.precision):
                yield
        else:
            yield

    def _like_params(self):
        return Parameters(self.config, dtype=self.params.flat.dtype)

    def _check_batch(self, tokens, targets):
        tokens = self._check("tokens", tokens, lowest=0)
        targets = self._check("targets", targets, lowest=-1)
        if targets.shape != tokens.shape:
            raise ArgumentError(
                f"targets must be {tokens.shape} as tokens are, not {targets.shape}"
            )
        if (targets == IGNORED).all():
            raise ArgumentError("targets are all -1: at least one has to count")
        return tokens, targets

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

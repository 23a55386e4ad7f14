"""Mistakes of the forward pass: what each makes of MINE's own inputs."""

import math

import numpy as np

from npgpt.layers.attention import split_heads
from npgpt.layers.gelu import CUBIC, SCALE
from npgpt.layers.layernorm import EPS
from npgpt.porting.rules import merge_heads, scores_of
from npgpt.tracing.taps import future

OTHER_EPS = (1e-6, 1e-8, 1e-12, 1e-3, 1e-4, 1e-7, 0.0)


def positions(case):
    tokens, wte, wpe = case.arrays()
    T, last = case.sizes.T, len(wpe) - 1
    yield wte[tokens] + wpe[np.minimum(np.arange(T) + 1, last)], "position t is given wpe[t + 1]"
    yield wte[tokens] + wpe[np.maximum(np.arange(T) - 1, 0)], "position t is given wpe[t - 1]"
    yield wte[tokens] + wpe[0], "every position is given wpe[0]"
    rows = np.minimum(np.arange(tokens.size), last).reshape(tokens.shape)
    yield wte[tokens] + wpe[rows], "positions go on counting from row to row of the batch"
    yield wte[tokens] + wpe[np.minimum(tokens, last)], "wpe is looked up by the token"


def token_rows(case):
    tokens, wte, wpe = case.arrays()
    flat = wte.reshape(-1)
    C, V = wte.shape[1], wte.shape[0]
    for what, rows in (("token - 1", tokens - 1), ("token + 1", (tokens + 1) % V)):
        yield wte[rows] + wpe[: case.sizes.T], f"row {what} of wte"
    strided = flat.reshape(C, V).T[tokens]
    yield strided + wpe[: case.sizes.T], "wte read as (C, V)"
    targets = case.get("targets")
    yield wte[np.maximum(targets, 0)] + wpe[: case.sizes.T], "the targets' rows of wte"


def epsilons(case):
    x, m = case.arrays()
    variance = ((x - m[..., None]) ** 2).mean(-1)
    for eps in OTHER_EPS:
        yield 1 / np.sqrt(variance + eps), f"{eps:g}, and not {EPS:g}"
    yield 1 / (np.sqrt(variance) + EPS), f"{EPS:g}, but added to the root, not under it"
    least = variance.argmin()
    fitted = float(case.mine.reshape(-1)[least] ** -2.0 - variance.reshape(-1)[least])
    if fitted > -variance.min():
        yield 1 / np.sqrt(variance + fitted), f"{fitted:.3g}, and not {EPS:g}"


def variances(case):
    x, m = case.arrays()
    xshift = x - m[..., None]
    C = x.shape[-1]
    square = (xshift**2).sum(-1)
    if C > 1:
        yield 1 / np.sqrt(square / (C - 1) + EPS), "divides by C - 1, not by C"
    yield 1 / np.sqrt((x**2).mean(-1) + EPS), "is that of x, whose mean was not subtracted"
    yield 1 / np.sqrt(square + EPS), "is a sum, not divided by C"
    yield 1 / np.sqrt(abs(xshift).mean(-1) ** 2 + EPS), "is the mean of |x|, not of squares"


def not_rstd(case):
    x, m = case.arrays()
    variance = ((x - m[..., None]) ** 2).mean(-1) + EPS
    yield np.sqrt(variance), "the standard deviation itself, not 1 by it"
    yield variance, "the variance itself"
    yield 1 / variance, "1 by the variance, without the root"


def norm_outputs(case):
    x, m, r, w, b = case.arrays()
    r = r[..., None]
    yield x * r * w + b, "the mean is not subtracted"
    yield (x - m[..., None]) * w + b, "it is not divided by the standard deviation"
    yield ((x - m[..., None]) / r) * w + b, "it is divided by rstd, not multiplied"
    yield (x - m[..., None]) * r * (w + b), "the bias is multiplied, not added"
    yield (x - m[..., None]) * r * (1 + w) + b, "the weight is taken as w + 1"
    yield ((x - m[..., None]) * r + b) * w, "the bias is added before the weight"
    yield x - m[..., None] * r * w + b, "a bracket is missing: x - (mean * rstd * w)"


def bias_missing(case):
    x, w, b = case.arrays()
    yield x @ w.T, case.inputs[2]


def bias_twice(case):
    x, w, b = case.arrays()
    yield x @ w.T + 2 * b, case.inputs[2]


def weight_transposed(case):
    x, w, *b = case.arrays()
    OC, C = w.shape
    yield x @ w.reshape(C, OC) + (b[0] if b else 0), case.inputs[1]


def qkv_orders(case):
    """The right channels at other places of q, k, v and the heads."""
    s, value = case.sizes, case.value
    parts = value.reshape(s.B, s.T, 3, s.config.n_head, s.hs)
    for order, names in (
        ((1, 0, 2), "k, q, v"), ((0, 2, 1), "q, v, k"), ((2, 1, 0), "v, k, q"),
        ((1, 2, 0), "k, v, q"), ((2, 0, 1), "v, q, k"),
    ):  # fmt: skip
        yield parts[:, :, list(order)].reshape(value.shape), f"they stand as {names}"
    heads = "they stand head by head: q, k and v of head 0, then of head 1"
    yield parts.swapaxes(2, 3).reshape(value.shape), heads
    yield parts.swapaxes(3, 4).reshape(value.shape), "the channels of all heads are interleaved"


def split_otherwise(qkv, s):
    """q, k, v (B, NH, T, hs) of other layouts, and what each is."""
    B, T, NH, hs = s.B, s.T, s.config.n_head, s.hs
    if NH > 1:
        by_head = qkv.reshape(B, T, NH, 3, hs).transpose(3, 0, 2, 1, 4)
        yield by_head, "each head's q, k and v are taken to stand together, (NH, 3, hs)"
        interleaved = qkv.reshape(B, T, 3, hs, NH).transpose(2, 0, 4, 1, 3)
        yield interleaved, "heads are taken to be interleaved, channel c of head c mod NH"
    triples = qkv.reshape(B, T, NH, hs, 3).transpose(4, 0, 2, 1, 3)
    yield triples, "q, k and v are taken to be interleaved, channel by channel"
    q, k, v = split_heads(qkv, NH)
    yield (k, q, v), "q and k are exchanged"
    yield (q, v, k), "k and v are exchanged"
    yield (v, k, q), "q and v are exchanged"
    yield (q, q, q), "q stands in for k and v"
    if NH > 1:
        reshaped = qkv.reshape(B, T, 3, NH * hs).transpose(2, 0, 1, 3).reshape(3, B, NH, T, hs)
        yield reshaped, "heads are cut off by a reshape to (B, NH, T, hs) without a transpose"


def score_layouts(case):
    (qkv,) = case.arrays()
    for (q, k, _), what in split_otherwise(qkv, case.sizes):
        yield scores_of(q, k, case.sizes.hs**-0.5)[0], what


def score_scales(case):
    (qkv,) = case.arrays()
    value, s = case.value, case.sizes
    hs, C, NH = s.hs, s.config.n_embd, s.config.n_head
    if hs > 1:
        yield value * math.sqrt(hs), "are not divided by sqrt(hs)"
        yield value / math.sqrt(hs), "are divided by hs, not by sqrt(hs)"
        yield value * hs, "are multiplied by sqrt(hs), not divided"
    if NH > 1:
        yield value / math.sqrt(NH), "are divided by sqrt(C), not by sqrt(hs)"
        yield value * math.sqrt(hs / NH), "are divided by sqrt(NH), not by sqrt(hs)"
        yield value * math.sqrt(hs) / math.sqrt(C * hs), "are divided by sqrt(C hs)"


def diagonal_masked(case):
    """Scores of a position for itself that are not what they should be, but all of one kind."""
    own, value = np.einsum("...tt->...t", case.mine), case.value.copy()
    if (own == own.flat[0]).all():
        np.einsum("...tt->...t", value)[...] = own
        yield value, "position t does not see itself"


def masks(case):
    (preatt,) = case.arrays()
    s, qkv = case.sizes, case.get("qkv")
    T = s.T
    if T > 1:
        closed = np.where(np.tri(T, T, -1, dtype=bool), preatt, -np.inf)
        att = normalised_exp(closed)
        att[..., 0, :] = case.mine[..., 0, :]
        yield att, "position t does not see itself"
    if qkv is None or T < 2:
        return
    q, k, _ = split_heads(qkv, s.config.n_head)
    every = q @ k.swapaxes(-1, -2) * s.hs**-0.5
    yield (
        normalised_exp(np.where(np.tri(T, T, 1, dtype=bool), every, -np.inf)),
        ("position t sees t + 1"),
    )
    yield normalised_exp(every), "there is none: every position sees all"
    yield (
        normalised_exp(np.where(np.tri(T, T, dtype=bool).T, every, -np.inf)),
        ("it is the wrong way round: position t sees t and those after it"),
    )
    yield (
        normalised_exp(np.where(future(T), 0, every)),
        ("it sets scores to 0, whose exponential is 1, and not to minus infinity"),
    )
    yield (
        np.tril(normalised_exp(every)),
        ("it comes after the softmax, so that rows do not add up to 1"),
    )
    if T > 2:
        near = np.tri(T, T, dtype=bool) & ~np.tri(T, T, -(T - 1), dtype=bool)
        yield normalised_exp(np.where(near, every, -np.inf)), "position t does not see all before"


def normalised_exp(scores, axis=-1):
    highest = scores.max(axis, keepdims=True)
    att = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
    return att / att.sum(axis, keepdims=True)


def softmaxes(case):
    (preatt,) = case.arrays()
    seen = np.where(future(case.sizes.T), -np.inf, preatt)
    yield normalised_exp(seen, -2), "goes along the queries, not along the keys"
    yield np.exp(seen - seen.max(-1, keepdims=True)), "is not divided by its sum"
    yield np.exp(seen), "is not divided by its sum"
    yield np.exp2(seen) / np.exp2(seen).sum(-1, keepdims=True), "takes powers of 2, not of e"
    yield normalised_exp(seen * math.sqrt(case.sizes.hs)), "is of scores without their scale"
    yield normalised_exp(seen / math.sqrt(case.sizes.hs)), "is of scores that are scaled twice"


def value_layouts(case):
    att, qkv = case.arrays()
    for (_, _, v), what in split_otherwise(qkv, case.sizes):
        yield merge_heads(att @ v), what


def head_merges(case):
    att, qkv = case.arrays()
    s = case.sizes
    y = att @ split_heads(qkv, s.config.n_head)[2]  # (B, NH, T, hs)
    shape = (s.B, s.T, s.config.n_embd)
    yield y.reshape(shape), "they are put together without a transpose of (B, NH, T, hs)"
    yield y.transpose(0, 2, 3, 1).reshape(shape), "their channels are interleaved"
    yield y[:, ::-1].swapaxes(1, 2).reshape(shape), "they stand in the reverse order"


def gelus(case):
    (x,) = case.arrays()
    erf = np.vectorize(math.erf, otypes=[float])
    yield 0.5 * x * (1 + erf(x / math.sqrt(2))), "it is the exact GELU, by erf, not the tanh form"
    yield x / (1 + np.exp(-1.702 * x)), "it is x times the sigmoid of 1.702 x"
    yield x / (1 + np.exp(-x)), "it is SiLU, x times the sigmoid of x"
    yield np.maximum(x, 0), "it is ReLU"
    for scale, cubic, what in (
        (SCALE, 0.0, "the cubic term is missing"),
        (1.0, CUBIC, "sqrt(2 / pi) is missing"),
        (2 / math.pi, CUBIC, "2 / pi stands in for its root"),
        (SCALE, 0.04715, "0.04715 stands in for 0.044715"),
        (SCALE, 0.0044715, "0.0044715 stands in for 0.044715"),
        (SCALE, 0.44715, "0.44715 stands in for 0.044715"),
        (SCALE**2, CUBIC, "sqrt(2 / pi) is squared"),
    ):
        yield 0.5 * x * (1 + np.tanh(scale * (x + cubic * x**3))), what
    yield 0.5 * x * (1 + np.tanh(SCALE * (x + CUBIC * x * x))), "x is squared, not cubed"
    yield 0.5 * x * np.tanh(SCALE * (x + CUBIC * x**3)), "the 1 + is missing"
    yield 0.5 * (1 + np.tanh(SCALE * (x + CUBIC * x**3))), "it is not multiplied by x"


def probabilities(case):
    (logits,) = case.arrays()
    V = logits.shape[-1]
    padding = -V % 128
    highest = logits.max(-1, keepdims=True)
    exps = np.exp(logits - highest)
    total = exps.sum(-1, keepdims=True)
    if padding:
        padded = f"the softmax goes over {V + padding} logits, those of wte's padding too"
        yield exps / (total + padding * np.exp(-highest)), padded
    yield exps, "the softmax is not divided by its sum"
    yield normalised_exp(logits, 1), "the softmax goes along the positions"
    yield (
        exps / np.exp(logits - highest).sum((-1, -2), keepdims=True),
        ("the softmax is divided by the sum of a whole row of the batch"),
    )


def loss_means(case):
    losses, targets = case.arrays()
    s, n = case.sizes, np.count_nonzero(targets != -1)
    yield losses.sum(), "it is the sum, not the mean"
    yield losses.sum() / s.T, "it is divided by T, not by B*T"
    yield losses.sum() / s.B, "it is divided by B, not by B*T"
    if n != s.B * s.T:
        yield losses.sum() / (s.B * s.T), "positions without a target are counted in the mean"
    yield losses.mean() / math.log(2), "it is in bits, not in nats"
    mine = case.judge.mine
    if n != losses.size and "losses" in mine and (every := mine.read("losses")).size == losses.size:
        yield every.mean(), "positions without a target, y = -1, have a loss and are counted"
        yield every.sum() / n, "positions without a target, y = -1, have a loss"


def without_targets(case):
    """The right losses, and 0 at positions that have a target by EXPECTED alone."""
    none = (case.mine == 0) & (case.value != 0)
    if none.any() and not none.all():
        yield (
            np.where(none, 0, case.value),
            f"{np.count_nonzero(none)} positions have none, as if their targets were -1:"
            " is it another pair's?",
        )


def target_mistakes(case):
    logits, targets = case.arrays()
    highest = logits.max(-1, keepdims=True)
    log_probs = logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))

    def at(ids):
        return -np.take_along_axis(log_probs, np.maximum(ids, 0)[..., None], -1)[..., 0]

    yield at(case.get("tokens")), "the tokens are taken for the targets"
    yield at(np.roll(targets, -1, 1)), "each position has the next one's target"
    yield at(np.roll(targets, 1, 1)), "each position has the target of the one before"
    yield -at(targets), "the sign is wrong"
    yield at(targets) / math.log(2), "the logarithm is to the base of 2"
    yield np.exp(-at(targets)), "it is the probability, without a logarithm"
    if (targets == -1).any():
        yield at(targets), "positions without a target have a loss"

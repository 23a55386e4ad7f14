"""Mistakes of the backward pass: what each makes of MINE's own inputs."""

import math

import numpy as np

from npgpt.layers.attention import split_heads
from npgpt.layers.crossentropy import IGNORED
from npgpt.layers.gelu import CUBIC, SCALE
from npgpt.porting.rules import as_heads, heads_gradients, join_heads, linear_dw, token_rows


def logit_gradients(case):
    probs, targets, dlosses = case.arrays()
    n = np.count_nonzero(targets != IGNORED)
    scale = dlosses[..., None]
    onehot = np.zeros(probs.shape)
    np.put_along_axis(onehot, np.maximum(targets, 0)[..., None], 1.0, -1)
    yield probs * scale, "the 1 at the target is not subtracted"
    yield (probs + onehot) * scale, "the 1 at the target is added, not subtracted"
    yield (probs - onehot) * scale * n, "it is not divided by the number of targets, B*T"
    yield (probs - onehot) * scale * case.sizes.B, "it is divided by T, not by B*T"
    yield (probs - onehot) * scale * case.sizes.T, "it is divided by B, not by B*T"
    yield probs * scale - onehot, "only the probabilities are divided by B*T"
    yield probs * (1 - probs) * scale, "it is the derivative of a sigmoid, probs (1 - probs)"
    others = np.zeros(probs.shape)
    np.put_along_axis(others, case.get("tokens")[..., None], 1.0, -1)
    yield (probs - others) * scale, "the 1 is subtracted at the token, not at the target"
    if n != targets.size:
        each = 1 / n
        yield (probs - onehot) * each, "positions without a target have a gradient"


def one_row_only(case):
    """A sum over the batch and the positions that has kept one of its terms: = for +=."""
    dout, *others = case.arrays()
    for at, what in kept(dout.shape):
        yield case.make(dout * at, *others), f"{what} alone is in it"


def kept(shape):
    """Masks (B, T, 1) of what a loop leaves that overwrites, and what that is."""
    B, T, _ = shape
    b, t = np.arange(B)[:, None, None], np.arange(T)[None, :, None]
    one = np.ones((B, T, 1), bool)
    if B > 1:
        yield one & (b == B - 1), "the last row of the batch"
        yield one & (b == 0), "the first row of the batch"
    if T > 1:
        yield one & (t == T - 1), "the last position of each row"
        yield one & (t == 0), "the first position of each row"
    if B * T > 1:
        yield (b == B - 1) & (t == T - 1), "the last position of the last row"


def norm_weight_gradients(case):
    dout, x, m, r = case.arrays()
    m, r = m[..., None], r[..., None]
    for factor, what in (
        (x, "x itself, not the normalised x"),
        (x - m, "x - mean, which is not multiplied by rstd"),
        (x * r, "x rstd, from which the mean was not subtracted"),
    ):
        yield (dout * factor).sum((0, 1)), what
    _, rule_w, *_ = ("", case.get(case.rule.removeprefix("d")))
    if rule_w is not None:
        yield case.value * rule_w, "the normalised x, times the weight"


def norm_terms(case):
    """A layernorm's dx without one of its three ways, alone or added to the stream's gradient."""
    *skip, dout, x, m, r, w = case.arrays()
    skip = skip[0] if skip else 0.0
    m, r = m[..., None], r[..., None]
    xhat, dxhat = (x - m) * r, dout * w
    by_mean = dxhat.mean(-1, keepdims=True)
    along = (dxhat * xhat).mean(-1, keepdims=True)
    C = x.shape[-1]
    for dx, what in (
        (r * (dxhat - xhat * along), "the way through the mean is missing"),
        (r * (dxhat - by_mean), "the way through the variance is missing"),
        (r * dxhat, "the ways through the mean and the variance are missing"),
        (dxhat - by_mean - xhat * along, "it is not multiplied by rstd"),
        (r * (dxhat - by_mean + xhat * along), "the way through the variance has the wrong sign"),
        (r * (dxhat + by_mean - xhat * along), "the way through the mean has the wrong sign"),
        (r * (dxhat - by_mean - along), "the way through the variance lacks the normalised x"),
        (r * (dxhat - C * by_mean - C * xhat * along), "its means are sums, not divided by C"),
        (norm_dx_without_weight(dout, xhat, r), "the weight is left out"),
    ):
        yield skip + dx, what


def norm_dx_without_weight(dout, xhat, r):
    along = (dout * xhat).mean(-1, keepdims=True)
    return r * (dout - dout.mean(-1, keepdims=True) - xhat * along)


def skip_mistakes(case):
    skip, *rest = case.arrays()
    dx = case.value - skip
    yield dx, "the gradient of the residual stream, which passes by, is not added: = for +="
    yield skip, "the gradient that comes through the layernorm is not added"
    yield case.value + skip, "the gradient of the residual stream is added twice"
    yield case.value + dx, "the gradient through the layernorm is added twice"


def gelu_gradients(case):
    dout, x = case.arrays()
    tanh = np.tanh(SCALE * (x + CUBIC * x**3))
    slope = (1 - tanh * tanh) * SCALE * (1 + 3 * CUBIC * x**2)
    erf = np.vectorize(math.erf, otypes=[float])
    exact = 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    for factor, what in (
        (exact, "it is that of the exact GELU, by erf, not of the tanh form"),
        (0.5 * (1 + tanh), "the term of tanh's own derivative is missing"),
        (0.5 * x * slope, "the term 0.5 (1 + tanh) is missing"),
        (
            0.5 * (1 + tanh + x * (1 - tanh * tanh) * SCALE),
            "the inner derivative lacks 3 * 0.044715 x^2",
        ),
        (
            0.5 * (1 + tanh + x * (1 - tanh * tanh) * SCALE * (1 + CUBIC * x**2)),
            "the inner derivative has 0.044715 x^2, without the 3",
        ),
        (
            0.5 * (1 + tanh + x * (1 - tanh * tanh) * (1 + 3 * CUBIC * x**2)),
            "the inner derivative lacks sqrt(2 / pi)",
        ),
        (0.5 * (1 + tanh + x * slope / (1 - tanh * tanh)), "1 - tanh^2 is missing"),
        (0.5 * (1 + tanh + x * slope / (1 - tanh * tanh) * (1 - tanh)), "1 - tanh is not squared"),
        (0.5 * (1 + tanh + slope), "tanh's derivative is not multiplied by x"),
        ((x > 0) * 1.0, "it is that of ReLU"),
    ):
        yield dout * factor, what


def softmax_gradients(case):
    datt, att = case.arrays()
    inner = (att * datt).sum(-1, keepdims=True)
    yield att * datt, "the sum over the row is not subtracted"
    yield att * (1 - att) * datt, "only the diagonal of the softmax's derivative is taken"
    yield np.tril(datt - inner), "it is not multiplied by att"
    yield np.tril(att * (datt - datt.sum(-1, keepdims=True))), "the sum has no weights att in it"
    yield att * (datt - (att * datt).mean(-1, keepdims=True)), "the sum is a mean over all T"
    along_queries = att * (datt - (att * datt).sum(-2, keepdims=True))
    yield along_queries, "the sum goes along the queries, not the keys"


def qkv_gradients(case):
    s = case.sizes
    dpreatt, att, datty, qkv = case.arrays()
    dy, (q, k, v) = as_heads(s, datty), split_heads(qkv, s.config.n_head)
    scale = s.hs**-0.5
    dq, dk, dv = heads_gradients(dpreatt, att, dy, q, k, scale)
    T, hs = s.T, s.hs
    options = [
        ((dq / scale, dk / scale, dv), "dq and dk are not divided by sqrt(hs)"),
        ((dq * scale, dk * scale, dv), "dq and dk are divided by hs, not by its root"),
        ((dq / scale, dk, dv), "dq is not divided by sqrt(hs)"),
        ((dq, dk / scale, dv), "dk is not divided by sqrt(hs)"),
        ((dq, dk, dv * scale), "dv is divided by sqrt(hs)"),
        ((dpreatt @ q * scale, dk, dv), "dq is made of q, not of k"),
        ((dq, dpreatt.swapaxes(-1, -2) @ k * scale, dv), "dk is made of k, not of q"),
        ((dq, dpreatt @ q * scale, dv), "dk is made of dpreatt, not of its transpose"),
        ((dpreatt.swapaxes(-1, -2) @ k * scale, dk, dv), "dq is made of dpreatt's transpose"),
        ((dq, dk, att @ dy), "dv is made of att, not of its transpose"),
        ((dk, dq, dv), "dq and dk are exchanged"),
        ((dq, dv, dk), "dk and dv are exchanged"),
        ((dv, dk, dq), "dq and dv are exchanged"),
        ((dq, dk, v * 0), "dv is missing"),
        ((dq, dk * 0, dv), "dk is missing"),
        ((dq * 0, dk, dv), "dq is missing"),
    ]
    if T > 1:
        diagonal = np.eye(T, dtype=bool)
        last = (dpreatt * diagonal).swapaxes(-1, -2) @ q * scale
        options.append(((dq, last, dv), "dk keeps the last position's share alone: = for +="))
        last_row = np.zeros_like(dpreatt)
        last_row[..., -1, :] = dpreatt[..., -1, :]
        options.append(
            ((dq, last_row.swapaxes(-1, -2) @ q * scale, dv), "dk has the last query's share alone")
        )
    for parts, what in options:
        if hs > 1 or "sqrt" not in what:
            yield join_heads(parts), what


def embedding_gradients(case):
    dlogits, lnf, dencoded, tokens = case.arrays()
    s = case.sizes
    head, _ = linear_dw(s, dlogits, lnf)
    rows = token_rows(s, dencoded, tokens)
    last = np.zeros_like(rows)
    last[tokens] = dencoded
    added = head.copy()
    added[tokens] += dencoded
    yield head, "the embedding's share is missing: the head's alone is in it"
    yield rows, "the head's share is missing: the embedding's alone is in it"
    yield head + last, "of a token that occurs several times, one occurrence alone counts"
    yield added, "of a token that occurs several times, one occurrence alone counts"
    yield np.where(rows != 0, rows, head), "the embedding's share overwrites the head's: = for +="
    yield head + 2 * rows, "the embedding's share is added twice"
    yield 2 * head + rows, "the head's share is added twice"
    yield (
        head + token_rows(s, dencoded, np.maximum(case.get("targets"), 0)),
        ("the embedding's share is added to the targets' rows"),
    )


def position_gradients(case):
    (dencoded,) = case.arrays()
    s = case.sizes
    for rows, what in (
        (dencoded[-1], "the last row of the batch alone counts: = for +="),
        (dencoded[0], "the first row of the batch alone counts"),
        (dencoded.mean(0), "it is the mean over the batch, not the sum"),
    ):
        value = np.zeros_like(case.value)
        value[: s.T] = rows
        yield value, what

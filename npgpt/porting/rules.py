"""What each tensor of a trace is made of, in float64, and what rounding can do to it.

A rule is a formula and the names of its inputs. The formula returns the tensor and its noise: the
size of the error, in units of the unit roundoff u, that computing it once from these inputs is
expected to make. A sum of n products a b has noise sqrt(n) sum |a b|: rounding errors of either
sign add up like a random walk (Higham and Mary 2019, SIAM J. Sci. Comput. 41), where the worst
case would be n.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.layers.attention import split_heads
from npgpt.layers.crossentropy import IGNORED
from npgpt.layers.gelu import CUBIC, SCALE, gelu_backward, gelu_forward
from npgpt.layers.layernorm import EPS
from npgpt.tracing.names import stream
from npgpt.tracing.taps import causal, causal_softmax

DIRECT = 64  # the noise of what has no rule, in units of its largest number


class Sizes(NamedTuple):
    """The sizes of a trace, and the unit roundoff u of what it is compared with."""

    config: GPT2Config
    B: int
    T: int
    u: float

    @property
    def hs(self):
        """The channels of a head."""
        return self.config.n_embd // self.config.n_head


def embed(s, tokens, wte, wpe):
    a, b = wte[tokens], wpe[: s.T]  # (B, T, C), (T, C)
    return a + b, abs(a) + abs(b)


def mean(s, x):
    return x.mean(-1), math.sqrt(x.shape[-1]) * abs(x).mean(-1)


def rstd(s, x, m):
    variance = ((x - m[..., None]) ** 2).mean(-1)  # (B, T)
    r = 1 / np.sqrt(variance + EPS)
    return r, r * rstd_noise(x, r)


def rstd_noise(x, r):
    """The relative noise of rstd, also where the variance is computed as E[x^2] - E[x]^2."""
    return math.sqrt(x.shape[-1]) * (x**2).mean(-1) * r**2 + 4


def normalise(s, x, m, r, w, b):
    xhat, noise = normalised(x, m, r)
    return xhat * w + b, noise * abs(w) + abs(xhat * w) + abs(b)


def normalised(x, m, r):
    """xhat (B, T, C) and its noise, where m and r are rounded once more than those in the trace."""
    xhat = (x - m[..., None]) * r[..., None]
    m_noise = math.sqrt(x.shape[-1]) * abs(x).mean(-1)  # (B, T)
    noise = (abs(x) + (abs(m) + m_noise)[..., None]) * r[..., None]
    return xhat, noise + abs(xhat) * rstd_noise(x, r)[..., None]


def linear(s, x, w, b=0.0):
    return x @ w.T + b, math.sqrt(w.shape[1] + 1) * (of_sizes(x, w.T) + abs(b))


def of_sizes(a, b):
    """abs(a) @ abs(b), of which a few digits are enough: in float32, twice as fast."""
    return (abs(a).astype("f4") @ abs(b).astype("f4")).astype(float)


def scores(s, qkv):
    q, k, _ = split_heads(qkv, s.config.n_head)  # (B, NH, T, hs)
    return scores_of(q, k, 1 / math.sqrt(s.hs))


def scores_of(q, k, scale):
    k = k.swapaxes(-1, -2)
    return causal(q @ k * scale), causal(math.sqrt(q.shape[-1]) * of_sizes(q, k) * scale)


def attention_softmax(s, preatt):
    highest = causal_max(preatt)
    att = causal_softmax(preatt)
    return att, att * (abs(preatt) + abs(highest) + math.sqrt(s.T) + 4)


def causal_max(preatt):
    future = np.triu(np.ones(preatt.shape[-2:], bool), 1)
    return np.where(future, -np.inf, preatt).max(-1, keepdims=True)


def weigh(s, att, qkv):
    return weigh_values(s, att, split_heads(qkv, s.config.n_head)[2])


def weigh_values(s, att, v):
    return merge_heads(att @ v), math.sqrt(s.T) * merge_heads(of_sizes(att, v))


def merge_heads(y):
    """y (B, NH, T, hs) -> (B, T, C)."""
    B, NH, T, hs = y.shape
    return y.swapaxes(1, 2).reshape(B, T, NH * hs)


def as_heads(s, x):
    """x (B, T, C) -> (B, NH, T, hs)."""
    return x.reshape(s.B, s.T, s.config.n_head, s.hs).swapaxes(1, 2)


def add(s, x, y):
    return x + y, abs(x) + abs(y)


def gelu(s, x):
    return gelu_forward(x)[0], 4 * abs(x)


def softmax(s, logits):
    highest = logits.max(-1, keepdims=True)
    probs = np.exp(logits - highest)
    probs /= probs.sum(-1, keepdims=True)
    lost = lost_in_sum(s, probs)
    noise = abs(logits) + abs(highest) + math.sqrt(logits.shape[-1]) + lost + 4
    return probs, probs * noise


def lost_in_sum(s, probs):
    """The relative noise of a sum of exponentials by what is too small to change it.

    Added up one by one, terms of less than u times the sum are lost, and with 50,257 of them that
    can be more than all roundings together.
    """
    return np.where(probs < 2 * s.u, probs, 0).sum(-1, keepdims=True) / (4 * s.u)


def losses(s, logits, targets):
    highest = logits.max(-1)
    exps = np.exp(logits - highest[..., None])
    sums = exps.sum(-1, keepdims=True)
    log_sum = np.log(sums[..., 0])
    target = np.take_along_axis(logits, np.maximum(targets, 0)[..., None], -1)[..., 0]
    counted = targets != IGNORED
    noise = 2 * abs(highest) + 2 * abs(target) + abs(log_sum) + math.sqrt(logits.shape[-1])
    noise += lost_in_sum(s, exps / sums)[..., 0]
    return (log_sum + highest - target) * counted, noise * counted


def mean_loss(s, losses, targets):
    n = np.count_nonzero(targets != IGNORED)
    return losses.sum() / n, math.sqrt(n) * abs(losses).sum() / n


def dlosses(s, targets):
    counted = targets != IGNORED
    each = counted / np.count_nonzero(counted)
    return each, each


def dlogits(s, probs, targets, dlosses):
    counted = (targets != IGNORED)[..., None]
    onehot = np.zeros(probs.shape)
    np.put_along_axis(onehot, np.maximum(targets, 0)[..., None], 1.0, -1)
    scale = abs(dlosses[..., None])
    value = (probs - onehot) * counted * dlosses[..., None]
    return value, 4 * scale * (probs + onehot * counted)


def linear_dx(s, dout, w):
    return dout @ w, math.sqrt(len(w)) * of_sizes(dout, w)


def linear_dw(s, dout, x):
    dout, x = dout.reshape(-1, dout.shape[-1]), x.reshape(-1, x.shape[-1])
    return dout.T @ x, math.sqrt(len(x)) * of_sizes(dout.T, x)


def linear_db(s, dout):
    rows = dout.reshape(-1, dout.shape[-1])
    return rows.sum(0), math.sqrt(len(rows)) * abs(rows).sum(0)


def norm_dx(s, dout, x, m, r, w):
    C = x.shape[-1]
    xhat, noise = normalised(x, m, r)
    dxhat, r = dout * w, r[..., None]
    along = (dxhat * xhat).mean(-1, keepdims=True)
    dx = r * (dxhat - dxhat.mean(-1, keepdims=True) - xhat * along)
    size = abs(dxhat)
    total = math.sqrt(C) * (
        size.mean(-1, keepdims=True) + abs(xhat) * (size * abs(xhat)).mean(-1, keepdims=True)
    )
    from_xhat = noise * abs(along) + abs(xhat) * (size * noise).mean(-1, keepdims=True)
    relative = rstd_noise(x, r[..., 0])[..., None]
    return dx, r * (2 * size + total + from_xhat) + abs(dx) * relative


def norm_dw(s, dout, x, m, r):
    xhat, noise = normalised(x, m, r)
    rows, axes = s.B * s.T, (0, 1)
    spread = math.sqrt(rows) * (abs(dout) * abs(xhat)).sum(axes)
    return (dout * xhat).sum(axes), spread + (abs(dout) * noise).sum(axes)


def copied(s, dout):
    return dout, abs(dout)


def gelu_dx(s, dout, x):
    slope = SCALE * (1 + 3 * CUBIC * x**2)  # of the argument of tanh
    return gelu_backward(dout, x), abs(dout) * (4 + abs(x) * slope)


def datt(s, datty, qkv):
    dy, v = as_heads(s, datty), split_heads(qkv, s.config.n_head)[2].swapaxes(-1, -2)
    return causal(dy @ v), causal(math.sqrt(s.hs) * of_sizes(dy, v))


def dpreatt(s, datt, att):
    size = att * (abs(datt) + (att * abs(datt)).sum(-1, keepdims=True))
    return att * (datt - (att * datt).sum(-1, keepdims=True)), math.sqrt(s.T) * size


def dqkv(s, dpreatt, att, datty, qkv):
    dy, (q, k, _) = as_heads(s, datty), split_heads(qkv, s.config.n_head)
    scale = 1 / math.sqrt(s.hs)
    parts = heads_gradients(dpreatt, att, dy, q, k, scale)
    sizes = heads_gradients(*map(abs, (dpreatt, att, dy, q, k)), scale)
    return join_heads(parts), math.sqrt(s.T) * join_heads(sizes)


def heads_gradients(dpreatt, att, dy, q, k, scale):
    """dq, dk and dv, each (B, NH, T, hs)."""
    return dpreatt @ k * scale, dpreatt.swapaxes(-1, -2) @ q * scale, att.swapaxes(-1, -2) @ dy


def join_heads(parts):
    return np.concatenate([merge_heads(part) for part in parts], axis=-1)


def norm_skip(s, skip, dout, x, m, r, w):
    dx, noise = norm_dx(s, dout, x, m, r, w)
    return skip + dx, abs(skip) + noise


def dwte(s, dlogits, lnf, dencoded, tokens):
    head, head_noise = linear_dw(s, dlogits, lnf)
    rows, sizes = token_rows(s, dencoded, tokens), token_rows(s, abs(dencoded), tokens)
    return head + rows, head_noise + abs(head) + math.sqrt(s.B * s.T) * sizes


def token_rows(s, dencoded, tokens):
    """Each token's sum over its occurrences, (V, C)."""
    rows = np.zeros((s.config.vocab_size, s.config.n_embd))
    np.add.at(rows, tokens, dencoded)
    return rows


def dwpe(s, dencoded):
    sums = np.zeros((2, s.config.block_size, s.config.n_embd))
    sums[0, : s.T], sums[1, : s.T] = dencoded.sum(0), abs(dencoded).sum(0)
    return sums[0], math.sqrt(s.B) * sums[1]


# Inputs are tensors of the same block; `input` is the residual stream that the block gets, `last`
# the one that the last block has made, and d before it is its gradient.
NORMS = {"ln1": "input", "ln2": "residual2", "lnf": "last"}
LINEARS = {
    "qkv": "ln1 qkv",
    "attproj": "atty attproj",
    "fch": "ln2 fc",
    "fcproj": "fch_gelu fcproj",
}
RULES: dict[str, tuple[Any, str]] = {
    "encoded": (embed, "tokens wte wpe"),
    "preatt": (scores, "qkv"),
    "att": (attention_softmax, "preatt"),
    "atty": (weigh, "att qkv"),
    "residual2": (add, "input attproj"),
    "fch_gelu": (gelu, "fch"),
    "residual3": (add, "residual2 fcproj"),
    "logits": (linear, "lnf wte"),
    "probs": (softmax, "logits"),
    "losses": (losses, "logits targets"),
    "loss": (mean_loss, "losses targets"),
    "dlosses": (dlosses, "targets"),
    "dlogits": (dlogits, "probs targets dlosses"),
    "dlnf": (linear_dx, "dlogits wte"),
    "dlast": (norm_dx, "dlnf last lnf_mean lnf_rstd lnfw"),
    "dfcproj": (copied, "dresidual3"),
    "dfch": (gelu_dx, "dfch_gelu fch"),
    "dresidual2": (norm_skip, "dresidual3 dln2 residual2 ln2_mean ln2_rstd ln2w"),
    "dattproj": (copied, "dresidual2"),
    "datt": (datt, "datty qkv"),
    "dpreatt": (dpreatt, "datt att"),
    "dqkv": (dqkv, "dpreatt att datty qkv"),
    "dinput": (norm_skip, "dresidual2 dln1 input ln1_mean ln1_rstd ln1w"),
    "dwte": (dwte, "dlogits lnf dencoded tokens"),
    "dwpe": (dwpe, "dencoded"),
}
for ln, x in NORMS.items():
    RULES[f"{ln}_mean"] = mean, x
    RULES[f"{ln}_rstd"] = rstd, f"{x} {ln}_mean"
    RULES[ln] = normalise, f"{x} {ln}_mean {ln}_rstd {ln}w {ln}b"
    RULES[f"d{ln}w"] = norm_dw, f"d{ln} {x} {ln}_mean {ln}_rstd"
    RULES[f"d{ln}b"] = linear_db, f"d{ln}"
for out, names in LINEARS.items():
    x, layer = names.split()
    RULES[out] = linear, f"{x} {layer}w {layer}b"
    RULES[f"d{x}"] = linear_dx, f"d{out} {layer}w"
    RULES[f"d{layer}w"] = linear_dw, f"d{out} {x}"
    RULES[f"d{layer}b"] = linear_db, f"d{out}"


def rule_of(name, L):
    """The rule of a tensor -> its name in RULES, or None, and the block that it belongs to."""
    base, _, block = name.partition(".")
    number = int(block) if block else None
    if name == f"d{stream(L)}":
        return "dlast", L
    if name == "dencoded" or base == "dresidual3":
        return "dinput", 0 if name == "dencoded" else number + 1
    return (base if base in RULES else None), number


def resolve(name, block, L):
    """The full name of a rule's input: residual3.1 for `input` in block 2."""
    d = "d" if name.startswith("d") and name[1:] in ("input", "last", "residual3") else ""
    if name.removeprefix("d") in ("input", "last"):
        return d + stream(L if name.endswith("last") else block)
    if name in GLOBAL or block is None:
        return name
    return f"{name}.{block}"


GLOBAL = (
    "tokens", "targets", "wte", "wpe", "encoded", "dencoded", "lnf", "lnf_mean", "lnf_rstd",
    "lnfw", "lnfb", "logits", "probs", "losses", "dlosses", "dlogits", "dlnf",
)  # fmt: skip

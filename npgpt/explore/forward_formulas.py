"""The formulas of the forward pass: tensor name -> what makes one of its numbers."""

import numpy as np

from npgpt.explore.numbers import Formula, double, plain, summed
from npgpt.layers.gelu import CUBIC, SCALE, gelu_forward
from npgpt.layers.layernorm import EPS
from npgpt.tracing.names import stream


def encoded(n, _, t, c):
    token, position = n["wte"][n.tokens[t], c], n["wpe"][t, c]
    inputs = {f"wte[{n.labels(n.tokens[t])}, {c}]": token, f"wpe[{t}, {c}]": position}
    return plain("encoded = wte[token] + wpe[position]", inputs, double(token) + position)


def layernorm_input(base, block, L):
    """The name of what a layernorm normalises."""
    if base == "ln2":
        return f"residual2.{block}"
    return stream(L if base == "lnf" else block)


def input_of(n, base, block):
    """What a layernorm normalises, and the ending of its own tensors' names."""
    x = n[layernorm_input(base, block, n.model.config.n_layer)]
    return x, "" if block is None else f".{block}"


def mean(base):
    def formula(n, block, t):
        x, _ = input_of(n, base, block)
        C = x.shape[-1]
        text = "mean = sum of x / C"
        return Formula(text, {"C": C}, (lambda c: f"x[{c}]", x[t], np.ones(C)), lambda s: s / C)

    return formula


def rstd(base):
    def formula(n, block, t):
        x, dot = input_of(n, base, block)
        C, m = x.shape[-1], n[f"{base}_mean{dot}"][t]
        shifted = double(x[t]) - m
        return Formula(
            "rstd = 1 / sqrt(mean of (x - mean)² + 1e-5)", {"mean": m, "C": C},
            (lambda c: f"(x[{c}] - mean)²", shifted, shifted),
            lambda s: (s / C + EPS) ** -0.5,
        )  # fmt: skip

    return formula


def layernorm(base):
    def formula(n, block, t, c):
        x, dot = input_of(n, base, block)
        m, r = n[f"{base}_mean{dot}"][t], n[f"{base}_rstd{dot}"][t]
        w, b = n[f"{base}w{dot}"][c], n[f"{base}b{dot}"][c]
        inputs = {f"x[{c}]": x[t, c], "mean": m, "rstd": r, f"w[{c}]": w, f"b[{c}]": b}
        value = (double(x[t, c]) - m) * r * w + b
        return plain("out = (x - mean) · rstd · w + b", inputs, value)

    return formula


def matmul(x_name, w_name):
    def formula(n, block, t, o):
        x, w = n[f"{x_name}.{block}"][t], n[f"{w_name}w.{block}"][o]
        b = n[f"{w_name}b.{block}"][o]
        text = f"out = sum over c of {x_name}[c] · {w_name}w[{o}, c] + {w_name}b[{o}]"
        label = f"{x_name}[{{}}] × {w_name}w[{o}, {{}}]"
        inputs = {f"{w_name}b[{o}]": b}
        return summed(text, lambda c: label.format(c, c), x, w, double(b), inputs)

    return formula


def preatt(n, block, h, t, u):
    if u > t:
        return plain("0: the future is masked", {}, 0.0)
    q, k = n.qkv(block, 0, h)[t], n.qkv(block, 1, h)[u]
    return Formula(
        f"preatt = q of {n.at(t)} · k of {n.at(u)} / sqrt(hs)", {"1 / sqrt(hs)": n.scale},
        (lambda c: f"q[{c}] × k[{c}]", q, k), lambda s: s * n.scale,
    )  # fmt: skip


def att(n, block, h, t, u):
    if u > t:
        return plain("0: the future is masked", {}, 0.0)
    row = double(n[f"preatt.{block}"][h, t, : t + 1])
    weights = np.exp(row - row.max())
    inputs = {f"preatt[{n.at(u)}]": row[u], "largest preatt": row.max()}
    return Formula(
        "att = exp(preatt - largest) / sum over the keys of exp(preatt - largest)", inputs,
        (lambda i: f"exp(preatt[{n.at(i)}] - largest)", weights, np.ones(t + 1)),
        lambda s: weights[u] / s,
    )  # fmt: skip


def atty(n, block, t, c):
    h, i = divmod(c, n.head_size)
    row, v = n[f"att.{block}"][h, t, : t + 1], n.qkv(block, 2, h)[: t + 1, i]
    text = f"atty = sum over the keys of att · v, channel {i} of head {h}"
    return summed(text, lambda u: f"att[{n.at(u)}] × v[{n.at(u)}]", row, v)


def residual(before, added):
    def formula(n, block, t, c):
        name = stream(block) if before is None else f"{before}.{block}"
        x, y = n[name][t, c], n[f"{added}.{block}"][t, c]
        inputs = {f"{name}[{c}]": x, f"{added}.{block}[{c}]": y}
        return plain(f"out = x + {added}", inputs, double(x) + y)

    return formula


def gelu(n, block, t, c):
    x = double(n[f"fch.{block}"][t, c])
    tanh = np.tanh(SCALE * (x + CUBIC * x**3))
    text = "gelu = x/2 · (1 + tanh(sqrt(2/π) · (x + 0.044715 x³)))"
    return plain(text, {"x": x, "tanh(…)": tanh}, gelu_forward(x[None])[0][0])


def logits(n, _, t, v):
    name = n.labels(v)
    return summed(
        f"logit = sum over c of lnf[c] · wte[{name}, c]",
        lambda c: f"lnf[{c}] × wte[{name}, {c}]", n["lnf"][t], n["wte"][v],
    )  # fmt: skip


def exponentials(n, t):
    row = double(n["logits"][t])
    weights = np.exp(row - row.max())
    return row, weights, (lambda i: f"exp(logit of {n.labels(i)} - largest)")


def probs(n, _, t, v):
    row, weights, label = exponentials(n, t)
    inputs = {f"logit of {n.labels(v)}": row[v], "largest logit": row.max()}
    return Formula(
        "prob = exp(logit - largest) / sum over the vocabulary of exp(logit - largest)", inputs,
        (label, weights, np.ones(len(row))), lambda s: weights[v] / s,
    )  # fmt: skip


def losses(n, _, t):
    target = n.targets[t]
    if target < 0:
        return plain("0: no target here", {}, 0.0)
    row, weights, label = exponentials(n, t)
    inputs = {f"logit of the target {n.labels(target)}": row[target], "largest logit": row.max()}
    return Formula(
        "loss = log(sum of exp(logit - largest)) - (logit of the target - largest)", inputs,
        (label, weights, np.ones(len(row))),
        lambda s: np.log(s) - (row[target] - row.max()),
    )  # fmt: skip


FORWARD = {
    "encoded": encoded,
    "ln1_mean": mean("ln1"), "ln1_rstd": rstd("ln1"), "ln1": layernorm("ln1"),
    "qkv": matmul("ln1", "qkv"), "preatt": preatt, "att": att, "atty": atty,
    "attproj": matmul("atty", "attproj"), "residual2": residual(None, "attproj"),
    "ln2_mean": mean("ln2"), "ln2_rstd": rstd("ln2"), "ln2": layernorm("ln2"),
    "fch": matmul("ln2", "fc"), "fch_gelu": gelu, "fcproj": matmul("fch_gelu", "fcproj"),
    "residual3": residual("residual2", "fcproj"),
    "lnf_mean": mean("lnf"), "lnf_rstd": rstd("lnf"), "lnf": layernorm("lnf"),
    "logits": logits, "probs": probs, "losses": losses,
}  # fmt: skip

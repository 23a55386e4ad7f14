"""The formulas of the backward pass: name of a gradient -> what makes one of its numbers."""

import numpy as np

from npgpt.explore.forward_formulas import input_of
from npgpt.explore.numbers import Formula, double, plain, summed
from npgpt.layers.gelu import CUBIC, SCALE


def dlosses(n, _, t):
    count = int((n.targets >= 0).sum())
    if n.targets[t] < 0:
        return plain("0: no target here", {}, 0.0)
    return plain("dlosses = 1 / number of targets", {"number of targets": count}, 1 / count)


def dlogits(n, _, t, v):
    prob, dloss, target = n["probs"][t, v], n["dlosses"][t], n.targets[t]
    hit = float(v == target)
    inputs = {f"prob of {n.labels(v)}": prob, "1 if it is the target": hit, "dlosses": dloss}
    value = (double(prob) - hit) * dloss
    return plain("dlogit = (prob - 1 if it is the target) · dlosses", inputs, value)


def dlnf(n, _, t, c):
    return summed(
        f"dlnf = sum over the vocabulary of dlogit · wte[token, {c}]",
        lambda v: f"dlogit of {n.labels(v)} × wte[{n.labels(v)}, {c}]",
        n["dlogits"][t], n["wte"][:, c],
    )  # fmt: skip


def layernorm_dx(n, base, block, t, c):
    """What a layernorm hands on to channel c of its input: the inputs shown, and the value."""
    x, dot = input_of(n, base, block)
    rstd = double(n[f"{base}_rstd{dot}"][t])
    xhat = (double(x[t]) - n[f"{base}_mean{dot}"][t]) * rstd
    dxhat = double(n[f"d{base}{dot}"][t]) * n[f"{base}w{dot}"]
    m, mx = dxhat.mean(), (dxhat * xhat).mean()
    inputs = {
        f"dxhat[{c}] = d{base} · w": dxhat[c], "mean of dxhat": m, f"xhat[{c}]": xhat[c],
        "mean of dxhat · xhat": mx, "rstd": rstd,
    }  # fmt: skip
    return inputs, (dxhat[c] - m - xhat[c] * mx) * rstd


LAYERNORM_DX = "rstd · (dxhat - mean of dxhat - xhat · mean of dxhat · xhat)"


def dstream(n, i, t, c):
    """The gradient of the residual stream that block i gets, or of what the last one has made."""
    L = n.model.config.n_layer
    if i == L:
        inputs, value = layernorm_dx(n, "lnf", None, t, c)
        return plain(f"dx = {LAYERNORM_DX}", inputs, value)
    inputs, value = layernorm_dx(n, "ln1", i, t, c)
    past = n[f"dresidual2.{i}"][t, c]
    inputs = {f"dresidual2.{i}[{c}], past the attention": past, **inputs}
    return plain(f"dx = dresidual2 + {LAYERNORM_DX}", inputs, value + past)


def dencoded(n, _, t, c):
    return dstream(n, 0, t, c)


def dresidual3(n, block, t, c):
    return dstream(n, block + 1, t, c)


def dresidual2(n, block, t, c):
    inputs, value = layernorm_dx(n, "ln2", block, t, c)
    past = n[f"dresidual3.{block}"][t, c]
    inputs = {f"dresidual3.{block}[{c}], past the MLP": past, **inputs}
    return plain(f"dx = dresidual3 + {LAYERNORM_DX}", inputs, value + past)


def passed_on(source):
    def formula(n, block, t, c):
        value = n[f"{source}.{block}"][t, c]
        text = f"a sum hands its gradient on as it is: d = {source}"
        return plain(text, {f"{source}.{block}[{c}]": value}, double(value))

    return formula


def matmul_dx(dout_name, w_name):
    def formula(n, block, t, c):
        dout, w = n[f"{dout_name}.{block}"][t], n[f"{w_name}w.{block}"][:, c]
        text = f"dx = sum over o of {dout_name}[o] · {w_name}w[o, {c}]"
        return summed(text, lambda o: f"{dout_name}[{o}] × {w_name}w[{o}, {c}]", dout, w)

    return formula


def dgelu(n, block, t, c):
    x, dout = double(n[f"fch.{block}"][t, c]), double(n[f"dfch_gelu.{block}"][t, c])
    tanh = np.tanh(SCALE * (x + CUBIC * x**3))
    slope = 0.5 * (1 + tanh + x * (1 - tanh**2) * SCALE * (1 + 3 * CUBIC * x**2))
    inputs = {f"dfch_gelu[{c}]": dout, f"fch[{c}]": x, "slope of gelu there": slope}
    return plain("dfch = dfch_gelu · slope of gelu", inputs, dout * slope)


def datt(n, block, h, t, u):
    if u > t:
        return plain("0: the future is masked", {}, 0.0)
    dy, v = n.heads(f"datty.{block}", h)[t], n.qkv(block, 2, h)[u]
    text = f"datt = datty of {n.at(t)} · v of {n.at(u)}, over the channels of head {h}"
    return summed(text, lambda c: f"datty[{c}] × v[{c}]", dy, v)


def dpreatt(n, block, h, t, u):
    if u > t:
        return plain("0: the future is masked", {}, 0.0)
    att, d = (double(n[f"{name}.{block}"][h, t, : t + 1]) for name in ("att", "datt"))
    inputs = {f"att[{n.at(u)}]": att[u], f"datt[{n.at(u)}]": d[u]}
    return Formula(
        "dpreatt = att · (datt - sum over the keys of att · datt)", inputs,
        (lambda i: f"att[{n.at(i)}] × datt[{n.at(i)}]", att, d), lambda s: att[u] * (d[u] - s),
    )  # fmt: skip


def dqkv(n, block, t, c):
    which, rest = divmod(c, n.model.config.n_embd)
    h, i = divmod(rest, n.head_size)
    if which == 2:
        weights, values = n[f"att.{block}"][h, :, t], n.heads(f"datty.{block}", h)[:, i]
        text = "dv = sum over the queries of att · datty"
        return summed(text, lambda q: f"att[{n.at(q)}] × datty[{n.at(q)}]", weights, values)
    d = n[f"dpreatt.{block}"][h]
    weights, name = (d[t], "k") if which == 0 else (d[:, t], "q")
    values = n.qkv(block, 1 - which, h)[:, i]
    what, over = ("dq", "keys") if which == 0 else ("dk", "queries")
    return Formula(
        f"{what} = sum over the {over} of dpreatt · {name} / sqrt(hs)", {"1 / sqrt(hs)": n.scale},
        (lambda u: f"dpreatt[{n.at(u)}] × {name}[{n.at(u)}]", weights, values),
        lambda s: s * n.scale,
    )  # fmt: skip


def matmul_dw(x_name, dout_name):
    def formula(n, block, o, c):
        dout, x = n[f"{dout_name}.{block}"][:, o], n[f"{x_name}.{block}"][:, c]
        text = f"dw = sum over the positions of {dout_name}[{o}] · {x_name}[{c}]"
        return summed(text, lambda t: f"{n.at(t)}: {dout_name}[{o}] × {x_name}[{c}]", dout, x)

    return formula


def over_positions(n, text, name, column):
    """A gradient that is the sum of a column of another one over the positions."""
    return summed(text, lambda t: f"{n.at(t)}: {name}", column, np.ones(len(column)))


def matmul_db(dout_name):
    def formula(n, block, o):
        column = n[f"{dout_name}.{block}"][:, o]
        text = f"db = sum over the positions of {dout_name}[{o}]"
        return over_positions(n, text, f"{dout_name}[{o}]", column)

    return formula


def layernorm_dw(base):
    def formula(n, block, c):
        x, dot = input_of(n, base, block)
        xhat = (double(x[:, c]) - n[f"{base}_mean{dot}"]) * n[f"{base}_rstd{dot}"]
        return summed(
            f"dw = sum over the positions of d{base}[{c}] · xhat[{c}], xhat = (x - mean) · rstd",
            lambda t: f"{n.at(t)}: d{base}[{c}] × xhat[{c}]", n[f"d{base}{dot}"][:, c], xhat,
        )  # fmt: skip

    return formula


def layernorm_db(base):
    def formula(n, block, c):
        _, dot = input_of(n, base, block)
        text = f"db = sum over the positions of d{base}[{c}]"
        return over_positions(n, text, f"d{base}[{c}]", n[f"d{base}{dot}"][:, c])

    return formula


def dwte(n, _, v, c):
    used = double(n["dencoded"][:, c])[n.tokens == v].sum()
    return summed(
        f"dwte[{n.labels(v)}, {c}] = as the head: sum over the positions of dlogit · lnf[{c}];"
        " and as the embedding: sum of dencoded where the token stands",
        lambda t: f"{n.at(t)}: dlogit × lnf[{c}]", n["dlogits"][:, v], n["lnf"][:, c],
        used, {"as the embedding": used},
    )  # fmt: skip


def dwpe(n, _, t, c):
    if t >= len(n.tokens):
        return plain("0: the text does not reach this position", {}, 0.0)
    value = double(n["dencoded"][t, c])
    return plain(f"dwpe[{t}] = dencoded[{t}]", {f"dencoded[{t}, {c}]": value}, value)


MATMULS = {  # layer: what goes in, what comes out
    "qkv": ("ln1", "qkv"), "attproj": ("atty", "attproj"),
    "fc": ("ln2", "fch"), "fcproj": ("fch_gelu", "fcproj"),
}  # fmt: skip
BACKWARD = {
    "dlosses": dlosses, "dlogits": dlogits, "dlnf": dlnf, "dencoded": dencoded,
    "dfcproj": passed_on("dresidual3"), "dattproj": passed_on("dresidual2"),
    "dfch": dgelu, "dresidual2": dresidual2, "dresidual3": dresidual3,
    "datt": datt, "dpreatt": dpreatt, "dqkv": dqkv, "dwte": dwte, "dwpe": dwpe,
}  # fmt: skip
for _layer, (_x, _out) in MATMULS.items():
    BACKWARD[f"d{_x}"] = matmul_dx(f"d{_out}", _layer)
    BACKWARD[f"d{_layer}w"] = matmul_dw(_x, f"d{_out}")
    BACKWARD[f"d{_layer}b"] = matmul_db(f"d{_out}")
for _base in ("ln1", "ln2", "lnf"):
    BACKWARD[f"d{_base}w"] = layernorm_dw(_base)
    BACKWARD[f"d{_base}b"] = layernorm_db(_base)

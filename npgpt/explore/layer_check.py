"""The gradient check of one layer of the model on the very numbers that it has just computed.

The gradient that came back from the layers above is the check's dout, scaled to 1 where it is
largest. Of a large array some elements are moved: those with the largest gradients, and random
ones.
"""

from typing import Any

import numpy as np

from npgpt import layers
from npgpt.checks.gradcheck import gradcheck
from npgpt.explore.backward_formulas import MATMULS
from npgpt.explore.code import layer_of
from npgpt.explore.forward_formulas import layernorm_input
from npgpt.explore.numbers import Numbers
from npgpt.tracing.names import split_name, stream

ELEMENTS = 12  # of each array that are moved: half of them with the largest gradients
ROWS = 1000  # of wte that take part in the check of the head: the likeliest, and the targets


def check_layer(numbers: Numbers, name: str) -> dict[str, Any]:
    """Check the layer that made tensor `name` by central differences in float64."""
    layer, _ = layer_of(name)
    arguments, dout, labels = LAYERS[layer](numbers, *split_name(name))
    forward, backward = functions(layer)
    report, moved = check(forward, backward, arguments, dout)
    rows = [
        {
            "argument": f"d{label}", "shape": list(array.shape), "moved": count,
            "error": row.error, "relative": row.relative, "ok": row.ok, "note": row.note,
        }
        for label, array, row, count in zip(
            labels, filter(is_float, arguments), report.rows, moved, strict=True
        )
    ]  # fmt: skip
    return {"layer": layer, "ok": bool(report), "rows": rows}


def functions(layer):
    """The two functions of a layer; a sum of two hands its gradient on to both."""
    if layer == "residual":
        return (lambda x, y: (layers.residual_add(x, y), None)), (lambda dout, _: (dout, dout))
    return getattr(layers, f"{layer}_forward"), getattr(layers, f"{layer}_backward")


def check(forward, backward, arguments, dout):
    """gradcheck of some elements of each array -> its Report, and how many elements of each.

    forward and backward are a layer's, the arguments its own, dout the gradient of its result.
    """
    arguments = [np.array(a, np.float64) if is_float(a) else a for a in arguments]
    dout = np.asarray(dout, np.float64)
    dout = dout / (np.abs(dout).max() or 1.0)
    floats = [i for i, a in enumerate(arguments) if is_float(a)]

    def gradients():
        _, cache = forward(*arguments)
        found = backward(dout[()], cache)
        return [g for g in (found if isinstance(found, tuple) else (found,)) if g is not None]

    chosen = [chosen_elements(gradient) for gradient in gradients()]
    samples = [arguments[i].flat[at] for i, at in zip(floats, chosen, strict=True)]

    def with_samples(*values):
        for i, at, value in zip(floats, chosen, values, strict=True):
            arguments[i].flat[at] = value
        return (forward(*arguments)[0] * dout).sum(), None

    def their_gradients(weight, _):
        found = zip(gradients(), chosen, strict=True)
        return tuple(weight * np.asarray(gradient).flat[at] for gradient, at in found)

    return gradcheck(with_samples, their_gradients, *samples), [len(at) for at in chosen]


def chosen_elements(gradient):
    """The flat indices of the elements to move: those of the largest gradients, and random ones."""
    flat = np.abs(np.asarray(gradient)).reshape(-1)
    largest = np.argsort(-flat, kind="stable")[: ELEMENTS // 2]
    others = np.random.default_rng(0).choice(flat.size, min(flat.size, ELEMENTS), replace=False)
    return np.unique([*largest, *others])[:ELEMENTS]


def is_float(array):
    return isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating)


def encoder_case(n, base, block):
    used, tokens = np.unique(n.tokens, return_inverse=True)
    arguments = (tokens[None], n["wte"][used], n["wpe"][: len(tokens)])
    return arguments, n["dencoded"][None], ("wte", "wpe")


def layernorm_case(n, base, block):
    L = n.model.config.n_layer
    if base in ("dencoded", "dresidual3"):  # it is what the next layernorm hands back
        block = 0 if block is None else block + 1
        base, block = ("lnf", None) if block == L else ("ln1", block)
    base = "ln2" if base == "dresidual2" else base.removeprefix("d")[:3]
    dot = "" if block is None else f".{block}"
    x = layernorm_input(base, block, L)
    names = (x, f"{base}w{dot}", f"{base}b{dot}")
    return (n[x][None], n[names[1]], n[names[2]]), n[f"d{base}{dot}"][None], names


def matmul_case(n, base, block):
    made = {out: layer for layer, (_, out) in MATMULS.items()}
    used = {f"d{x}": layer for layer, (x, _) in MATMULS.items()}
    layer = made.get(base) or used.get(base) or base.removeprefix("d")[:-1]
    x, out = MATMULS[layer]
    names = (f"{layer}w.{block}", f"{layer}b.{block}")
    arguments = (n[f"{x}.{block}"][None], *(n[name] for name in names))
    return arguments, n[f"d{out}.{block}"][None], (f"{x}.{block}", *names)


def attention_case(n, base, block):
    arguments = (n[f"qkv.{block}"][None], n.model.config.n_head)
    return arguments, n[f"datty.{block}"][None], (f"qkv.{block}",)


def residual_case(n, base, block):
    x, y, out = stream(block), f"attproj.{block}", f"dresidual2.{block}"
    if base in ("residual3", "dfcproj"):
        x, y, out = f"residual2.{block}", f"fcproj.{block}", f"dresidual3.{block}"
    return (n[x][None], n[y][None]), n[out][None], (x, y)


def gelu_case(n, base, block):
    return (n[f"fch.{block}"][None],), n[f"dfch_gelu.{block}"][None], (f"fch.{block}",)


def crossentropy_case(n, base, block):
    here = np.flatnonzero(n.targets >= 0)[-4:]  # positions
    V = n.model.config.vocab_size
    likely = np.argsort(-n["logits"][here].max(0), kind="stable")[: min(V, ROWS)]
    rows = np.union1d(likely, n.targets[here])
    targets = np.searchsorted(rows, n.targets[here])
    arguments = (n["lnf"][None, here], n["wte"][rows], targets[None])
    return arguments, 1.0, ("lnf", "wte")


LAYERS = {
    "encoder": encoder_case, "layernorm": layernorm_case, "matmul": matmul_case,
    "attention": attention_case, "residual": residual_case, "gelu": gelu_case,
    "crossentropy": crossentropy_case,
}  # fmt: skip

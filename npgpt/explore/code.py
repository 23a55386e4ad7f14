"""The lines of npgpt/layers/ that made a tensor, with the kinds of their words, to be coloured."""

import inspect
import io
import keyword
import tokenize
from typing import Any

from npgpt import layers
from npgpt.errors import ArgumentError
from npgpt.layers import attention as attention_module
from npgpt.tracing.names import split_name

# Tensors by layer, each with the beginnings of the lines that make it. A gradient's lines are those
# of the backward pass, a tensor's those of the forward pass.
FORWARD_LINES = {
    "encoder": {"encoded": ["return wte[tokens]"]},
    "layernorm": {
        "ln1_mean": ["mean ="], "ln1_rstd": ["rstd ="], "ln1": ["return"],
        "ln2_mean": ["mean ="], "ln2_rstd": ["rstd ="], "ln2": ["return"],
        "lnf_mean": ["mean ="], "lnf_rstd": ["rstd ="], "lnf": ["return"],
    },
    "matmul": dict.fromkeys(("qkv", "attproj", "fch", "fcproj"), ["out =", "out +="]),
    "attention": {
        "preatt": ["preatt =", "preatt[..."], "att": ["preatt -=", "att =", "att /="],
        "atty": ["return kept", "y, att"],
    },
    "residual": {"residual2": ["return"], "residual3": ["return"]},
    "gelu": {"fch_gelu": ["tanh =", "out[i"]},
    "crossentropy": {
        "logits": ["logits ="], "probs": ["probs =", "sums =", "probs /="], "losses": ["loss ="],
    },
}  # fmt: skip
BACKWARD_LINES = {
    "encoder": {"dwte": ["dwte =", "np.add.at"], "dwpe": ["dwpe =", "dwpe["]},
    "layernorm": {
        **dict.fromkeys(("dln1w", "dln1b", "dln2w", "dln2b", "dlnfw", "dlnfb"), ["dw, db ="]),
        **dict.fromkeys(
            ("dencoded", "dresidual2", "dresidual3"), ["dxhat =", "dx =", "return dx"]
        ),
    },
    "matmul": {
        **dict.fromkeys(("dln1", "datty", "dln2", "dfch_gelu"), ["dx ="]),
        **dict.fromkeys(("dqkvw", "dattprojw", "dfcw", "dfcprojw"), ["dw ="]),
        **dict.fromkeys(("dqkvb", "dattprojb", "dfcb", "dfcprojb"), ["db ="]),
    },
    "attention": {
        "datt": ["datt ="], "dpreatt": ["dpreatt ="], "dqkv": ["dv[:]", "dq[:]", "dk[:]"],
    },
    "residual": {"dattproj": ["return"], "dfcproj": ["return"]},
    "gelu": {"dfch": ["slope =", "dx[i"]},
    "crossentropy": {
        "dlosses": ["weight["], "dlogits": ["dlogits =", "dlogits["], "dlnf": ["dx ="],
    },
}  # fmt: skip


def layer_of(name):
    """The layer that makes a tensor, gradient or use of a parameter, and its way."""
    if not isinstance(name, str):
        raise ArgumentError(f"a tensor's name must be a string, not {name!r:.40}")
    base, _ = split_name(name)
    for way, table in (("forward", FORWARD_LINES), ("backward", BACKWARD_LINES)):
        for layer, tensors in table.items():
            if base in tensors:
                return layer, way
            if way == "backward" and f"d{base}" in tensors:  # a parameter: where it is used
                return layer, "forward"
    raise ArgumentError(f"no layer makes a tensor {name}")


def code_of(name) -> dict[str, Any]:
    """The source of the layer that makes a tensor, the lines that do so marked.

    Returns: the layer, its file, and its functions: each with the number of its first line, lines
    of (kind, text) pairs, and the numbers of the marked ones, counted from 0.
    """
    layer, way = layer_of(name)
    base, _ = split_name(name)
    wanted = {**FORWARD_LINES[layer], **BACKWARD_LINES[layer]}.get(base, [])
    return {
        "layer": layer,
        "file": f"npgpt/layers/{layer}.py",
        "functions": [
            source_of(function, wanted if each == way else [])
            for each, function in functions_of(layer, way)
        ],
    }


def functions_of(layer, way):
    """The functions of a layer, each with the pass that it belongs to."""
    if layer == "residual":  # one function is both passes
        return [(way, layers.residual_add)]
    pair = [(way, getattr(layers, f"{layer}_{way}")) for way in ("forward", "backward")]
    return [("forward", attention_module.attend), *pair] if layer == "attention" else pair


def source_of(function, wanted):
    """A function's source: its first line's number, its lines, and those that begin as wanted."""
    lines, first = inspect.getsourcelines(function)
    begins = [i for i, line in enumerate(lines) if line.strip().startswith(tuple(wanted))]
    return {
        "name": function.__name__,
        "first": first,
        "lines": coloured("".join(lines)),
        "marked": begins if wanted else [],
    }


def coloured(source):
    """Source text -> a list of lines, each a list of (kind, text) pairs; kind "" is plain."""
    lines = source.splitlines()
    kinds = [[""] * len(line) for line in lines]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = {tokenize.COMMENT: "comment", tokenize.STRING: "string", tokenize.NUMBER: "number"}
        what = kind.get(token.type, "")
        if token.type == tokenize.NAME and keyword.iskeyword(token.string):
            what = "keyword"
        if not what:
            continue
        (top, left), (bottom, right) = token.start, token.end
        for row in range(top - 1, bottom):
            start = left if row == top - 1 else 0
            end = right if row == bottom - 1 else len(lines[row])
            kinds[row][start:end] = [what] * (end - start)
    return [runs(line, kind) for line, kind in zip(lines, kinds, strict=True)]


def runs(line, kinds):
    """A line's characters and their kinds -> pairs of a kind and the characters that have it."""
    found: list[list[str]] = []
    for character, kind in zip(line, kinds, strict=True):
        if found and found[-1][0] == kind:
            found[-1][1] += character
        else:
            found.append([kind, character])
    return found

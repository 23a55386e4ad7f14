"""The tensors of a trace: their names, shapes and order, which is that of computation.

Names are llm.c's. Those of a block end in its number, as ln1.0; a gradient has a d in front.
"""

from fnmatch import fnmatchcase

import numpy as np

from npgpt.core.parameters import BLOCK_NAMES, TENSOR_NAMES, parameter_shapes
from npgpt.errors import ArgumentError

# What a block computes, and each tensor's shape: a letter a size, 3C and 4C multiples of C.
BLOCK_SHAPES = {
    "ln1_mean": "B T", "ln1_rstd": "B T", "ln1": "B T C", "qkv": "B T 3C",
    "preatt": "B NH T T", "att": "B NH T T", "atty": "B T C", "attproj": "B T C",
    "residual2": "B T C", "ln2_mean": "B T", "ln2_rstd": "B T", "ln2": "B T C",
    "fch": "B T 4C", "fch_gelu": "B T 4C", "fcproj": "B T C", "residual3": "B T C",
}  # fmt: skip
SHAPES = {
    "encoded": "B T C", "lnf_mean": "B T", "lnf_rstd": "B T", "lnf": "B T C",
    "logits": "B T V", "probs": "B T V", "losses": "B T", "loss": "",
}  # fmt: skip
FORWARD_BLOCK = tuple(BLOCK_SHAPES)
FORWARD_HEAD = ("lnf_mean", "lnf_rstd", "lnf", "logits", "probs", "losses", "loss")
BACKWARD_HEAD = ("dlosses", "dlogits", "dlnf")
BACKWARD_BLOCK = (
    "dfcproj", "dfch_gelu", "dfcprojw", "dfcprojb", "dfch", "dln2", "dfcw", "dfcb", "dln2w",
    "dln2b", "dresidual2", "dattproj", "datty", "dattprojw", "dattprojb", "datt", "dpreatt",
    "dqkv", "dln1", "dqkvw", "dqkvb", "dln1w", "dln1b",
)  # fmt: skip
STEPS = ("step_m", "step_v", "step_params", "step_loss")  # of update 1, 2, ...: norms, and the loss
SETTINGS = "step_settings"  # of the updates: learning rate and weight decay
INPUTS = ("config", "tokens", "targets")
INTEGERS = dict.fromkeys(INPUTS, np.dtype("<i4"))


def stream(block):
    """The residual stream that a block gets: encoded, or what the block before has made."""
    return "encoded" if block == 0 else f"residual3.{block - 1}"


def parameter_names(L):
    """The parameters in the model file's order, each block's by itself: ln1w.0, ln1w.1, ..."""
    for name in TENSOR_NAMES:
        yield from (f"{name}.{i}" for i in range(L)) if name in BLOCK_NAMES else (name,)


def in_order(L, backward=True, steps=0):
    """Every name of a trace of L blocks, from the inputs to the updates."""
    yield from INPUTS
    yield from parameter_names(L)
    yield "encoded"
    for i in range(L):
        yield from (f"{name}.{i}" for name in FORWARD_BLOCK)
    yield from FORWARD_HEAD
    if backward:
        yield from (*BACKWARD_HEAD, f"d{stream(L)}", "dlnfw", "dlnfb")
        for i in reversed(range(L)):
            yield from (f"{name}.{i}" for name in BACKWARD_BLOCK)
            yield f"d{stream(i)}"
        yield from ("dwte", "dwpe")
    if steps:
        yield SETTINGS
    for step in range(1, steps + 1):
        yield from (f"{name}.{step}" for name in STEPS)


def block_of(name):
    """The number of the block that a tensor belongs to, or None."""
    base, number = split_name(name)
    return None if base in STEPS else number


def split_name(name):
    """ln1.0 -> ("ln1", 0); lnf -> ("lnf", None)."""
    base, dot, block = name.rpartition(".")
    return (base, int(block)) if dot and block.isdecimal() else (name, None)


def shape_of(name, config, B, T):
    """The shape of the tensor of this name."""
    base, _ = split_name(name)
    if name == "config":
        return (5,)
    if name in ("tokens", "targets"):
        return (B, T)
    if name == SETTINGS:
        return (2,)
    if base in STEPS:
        return () if base == "step_loss" else (len(TENSOR_NAMES),)
    base = base.removeprefix("d")
    if base in TENSOR_NAMES:
        shape = parameter_shapes(config)[base]
        return shape[1:] if base in BLOCK_NAMES else shape
    sizes = {
        "B": B, "T": T, "C": config.n_embd, "3C": 3 * config.n_embd, "4C": 4 * config.n_embd,
        "NH": config.n_head, "V": config.vocab_size,
    }  # fmt: skip
    return tuple(sizes[size] for size in {**SHAPES, **BLOCK_SHAPES}[base].split())


def config_numbers(config):
    """The tensor `config`: block_size, vocab_size, n_layer, n_head, n_embd, as in model files."""
    c = config
    return np.array([c.block_size, c.vocab_size, c.n_layer, c.n_head, c.n_embd], "<i4")


def select(names, only=None, blocks=None):
    """Those of the names that a choice leaves: patterns as ln1 or d*w, numbers of blocks.

    The inputs are always among them. Raises ArgumentError for a pattern that nothing matches, and
    for a block that there is not.
    """
    names = list(names)
    there = {block_of(name) for name in names} - {None}
    for block in blocks or ():
        if block not in there:
            raise ArgumentError(f"--blocks: there are 0 to {max(there)}, and no {block}")
    for pattern in only or ():
        if not any(matches(name, pattern) for name in names):
            raise ArgumentError(f"--only: no tensor of a trace is called {pattern}")
    return [
        name
        for name in names
        if name in INPUTS
        or (only is None or any(matches(name, pattern) for pattern in only))
        and (blocks is None or block_of(name) in (None, *blocks))
    ]


def matches(name, pattern):
    """Whether a pattern means this tensor: by its whole name, or by that without the block."""
    return fnmatchcase(name, pattern) or fnmatchcase(split_name(name)[0], pattern)

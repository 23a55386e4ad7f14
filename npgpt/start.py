"""What a training run starts from: its tokens, its model, and whether it fits into this machine."""

import os
import re
import shutil
import time
from pathlib import Path

import numpy as np

from npgpt.config import GPT2Config
from npgpt.dataset import open_tokens
from npgpt.errors import ArgumentError, FileError
from npgpt.estimate import estimate
from npgpt.gpt2 import GPT2
from npgpt.parameters import Parameters, count_parameters
from npgpt.pretrained import load_model
from npgpt.run import checkpoint_steps
from npgpt.threads import threads
from npgpt.tokenizer import GPT2Tokenizer, tokenizer_from

CHANNELS = {6: 384, 12: 768, 24: 1024, 36: 1280, 48: 1600}  # of llm.c's d6, ... d48
GPT2_CONTEXT = 1024


def open_data(s):
    """The Settings' token files -> Tokens to train on, Tokens to validate on or None, tokenizer.

    The last is None where the files name none.
    """
    if not s.train:
        raise ArgumentError("train must name a token file (npgpt prepare makes them)")
    tokens, val_tokens = open_tokens(s.train), open_tokens(s.val) if s.val else None
    own, other = tokens.tokenizer, val_tokens and val_tokens.tokenizer
    if own and other and own != other:
        raise ArgumentError(
            f"val: {s.val} is of the tokenizer {other['name']}, but {s.train} of {own['name']},"
            " or of other characters"
        )
    tokenizer = tokenizer_from(own or other) if own or other else None
    return tokens, val_tokens, tokenizer


def make_model(s, tokens, val_tokens, tokenizer):
    """The GPT2 that the Settings start from; it gets the tokenizer."""
    sizes = {name: getattr(s, name) for name in ("n_layer", "n_head", "n_embd")}
    depth = re.fullmatch(r"d(\d+)", s.model)
    if s.model and not depth:
        given = [name for name in (*sizes, "block_size", "vocab_size") if getattr(s, name)]
        if given:
            raise ArgumentError(f"{given[0]} is for a model from scratch, not for {s.model}")
        params, own = load_model(s.model)
        loaded = params.flat.nbytes
        tokenizer = agreed(s.train, tokenizer, s.model, own)
        config = params.config
    else:
        params, loaded = None, 0
        config = scratch_config(s, sizes, depth, tokenizer)
    check_data(s, config, tokens, val_tokens)
    check_room(s, config, loaded)
    params = Parameters.init(config, s.seed) if params is None else params
    model = GPT2(config, params=params, recompute=s.recompute, precision=s.precision)
    model.tokenizer = tokenizer
    return model


def agreed(train, tokenizer, model, own):
    """The tokenizer of the tokens and of the model, its description own; either may be None."""
    if own and tokenizer and own != tokenizer.description:
        raise ArgumentError(
            f"train: {train} is of the tokenizer {tokenizer.name}, but {model} of {own['name']},"
            " or of other characters"
        )
    return tokenizer or (own and tokenizer_from(own))


def check_data(s, config, tokens, val_tokens):
    """Refuse tokens that the model does not have, and sequences longer than its context."""
    if config.block_size < s.T:
        raise ArgumentError(f"T can be {config.block_size}, the model's block_size, not {s.T}")
    for path in [*tokens.paths, *(val_tokens.paths if val_tokens else [])]:
        highest = open_tokens(path).highest()
        if highest >= config.vocab_size:
            raise FileError(
                f"{path}: has the token {highest}, but the model's go up to {config.vocab_size - 1}"
            )


def scratch_config(s, sizes, depth, tokenizer):
    """The GPT2Config that the Settings ask for from scratch."""
    if depth:
        layers = int(depth[1])
        if layers not in CHANNELS or any(sizes.values()):
            raise ArgumentError(
                f"model must be one of {', '.join(f'd{n}' for n in CHANNELS)} without n_layer,"
                f" n_head and n_embd, or these three, not {s.model}"
            )
        sizes = {"n_layer": layers, "n_head": CHANNELS[layers] // 64, "n_embd": CHANNELS[layers]}
    elif not all(sizes.values()):
        raise ArgumentError(
            "model must name what to start from (gpt2, d12, a file, ...), or n_layer, n_head and"
            " n_embd must be given, all three"
        )
    known = (tokenizer or GPT2Tokenizer).vocab_size
    if tokenizer and 0 < s.vocab_size < known:
        raise ArgumentError(
            f"vocab_size must be at least {known}, the tokenizer's, not {s.vocab_size}"
        )
    return GPT2Config(
        block_size=s.block_size or (GPT2_CONTEXT if depth else s.T),
        vocab_size=s.vocab_size or known,
        **sizes,
    )


def check_room(s, config, loaded=0):
    """Refuse a run that does not fit into memory, or whose checkpoints do not fit on the disk.

    So many bytes of what it needs are in memory already.
    """
    need, free = estimate(config, s.B, s.T, s.recompute), available_memory()
    print(f"memory of a step: {need}" + (f" (available {free / 1e9:.2f} GB)" if free else ""))
    if free is not None and need.total > free + loaded:
        advice = "" if s.recompute else " (recompute, or a smaller B or T, takes less)"
        raise ArgumentError(
            f"a step takes {need.total / 1e9:.2f} GB of memory, but {free / 1e9:.2f} GB are"
            f" available{advice}"
        )
    checkpoint, disk = 12 * count_parameters(config), shutil.disk_usage(existing(s.run)).free
    more = max(1, s.keep + 2 - len(checkpoint_steps(s.run)))
    if checkpoint * more > disk:
        raise ArgumentError(
            f"run: {more} checkpoints of {checkpoint / 1e9:.2f} GB (those to keep, the best and the"
            f" one being written) do not fit into the {disk / 1e9:.2f} GB free in {s.run}"
        )


def existing(path):
    """The innermost folder on the way to path that is there already."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if os.path.isdir(folder))


def available_memory():
    """Bytes that this process can still take, by Linux and its container; None elsewhere."""
    free = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")  # of a container, in its second version
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(stat["active_file"]) + int(stat["inactive_file"])  # files, not in use
        free.append(limit - used + cached)
    except (OSError, ValueError, KeyError):  # another system, no container, or one without a limit
        pass
    return min(free, default=None)


def step_seconds(model, B, T, accumulation):
    """About how long an update will take, from the time of one of its products -> seconds."""
    C, N = model.config.n_embd, B * T
    w = model.params.fcw[0]
    x = np.ones((1, N, C), w.dtype)
    with threads(6 * N * model.params.flat.size):
        model.layers.matmul_forward(x, w)  # compiles, and takes memory for the first time
        start = time.perf_counter()
        model.layers.matmul_forward(x, w)
        rate = 2 * N * w.size / (time.perf_counter() - start)
    attention = 12 * model.config.n_layer * B * T * T * C / 2  # two products, three passes
    flops = 6 * count_parameters(model.config) * N + attention
    return 1.25 * accumulation * flops / rate

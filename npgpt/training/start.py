"""What a training run starts from: its data, its model, and whether they fit into this machine."""

import os
import re
import shutil
import time
from pathlib import Path

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters, count_parameters
from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import GPT2Tokenizer, check_same_tokenizer, tokenizer_from
from npgpt.errors import ArgumentError, FileError
from npgpt.formats.models import load_model
from npgpt.formats.run_checkpoint import checkpoint_steps
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import estimate

CHANNELS = {6: 384, 12: 768, 24: 1024, 36: 1280, 48: 1600}  # of llm.c's d6, ... d48
GPT2_CONTEXT = 1024
SIZES = ("n_layer", "n_head", "n_embd")


class Data:
    """A run's token files: `train` and `val` are Tokens, the latter None where none are named.

    `tokenizer` is the description of the one that made them, None where no file has one.
    """

    def __init__(self, s):
        """Open what the Settings name; raises FileError and ArgumentError where that cannot be."""
        if not s.train:
            raise ArgumentError("train must name a token file (npgpt prepare makes them)")
        self.train, self.val = open_tokens(s.train), open_tokens(s.val) if s.val else None
        self.tokenizer = self.train.tokenizer
        if self.val:
            check_same_tokenizer(f"val: {s.val}", self.val.tokenizer, s.train, self.tokenizer)
            self.tokenizer = self.tokenizer or self.val.tokenizer
        self.settings = s

    def check_fits(self, config):
        """Refuse tokens that the model does not have, and sequences longer than its context."""
        T = self.settings.T
        if config.block_size < T:
            raise ArgumentError(f"T can be {config.block_size}, the model's block_size, not {T}")
        for path in [*self.train.paths, *(self.val.paths if self.val else [])]:
            highest = open_tokens(path).highest()
            if highest >= config.vocab_size:
                raise FileError(
                    f"{path}: has the token {highest}, but the model's go up to"
                    f" {config.vocab_size - 1}"
                )

    def reconcile_tokenizers(self, model, description):
        """The Tokenizer of the data and of the model, whose description may be None, as theirs."""
        s = self.settings
        check_same_tokenizer(f"train: {s.train}", self.tokenizer, model, description)
        description = self.tokenizer or description
        return None if description is None else tokenizer_from(description)


def make_model(s, data):
    """The GPT2 that the Settings start from, with its tokenizer."""
    depth = re.fullmatch(r"d(\d+)", s.model)
    if s.model and not depth:
        given = [name for name in (*SIZES, "block_size", "vocab_size") if getattr(s, name)]
        if given:
            raise ArgumentError(f"{given[0]} is for a model from scratch, not for {s.model}")
        params, description = load_model(s.model)
        config, loaded = params.config, params.flat.nbytes
    else:
        params, description, loaded = None, None, 0
        config = config_from_scratch(s, depth, data.tokenizer)
    tokenizer = data.reconcile_tokenizers(s.model, description)
    data.check_fits(config)
    check_memory_and_disk(s, config, loaded)
    params = Parameters.init(config, s.seed) if params is None else params
    return model_of(s, params, tokenizer)


def model_of(s, params, tokenizer):
    """A GPT2 on these Parameters that computes as the Settings say."""
    model = GPT2(params.config, params=params, recompute=s.recompute, precision=s.precision)
    model.tokenizer = tokenizer
    return model


def config_from_scratch(s, depth, description):
    """The GPT2Config that the Settings ask for; depth is the match of d12, ..., or None."""
    sizes = {name: getattr(s, name) for name in SIZES}
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
    known = (tokenizer_from(description) if description else GPT2Tokenizer).vocab_size
    if description and 0 < s.vocab_size < known:
        raise ArgumentError(
            f"vocab_size must be at least {known}, the tokenizer's, not {s.vocab_size}"
        )
    return GPT2Config(
        block_size=s.block_size or (GPT2_CONTEXT if depth else s.T),
        vocab_size=s.vocab_size or known,
        **sizes,
    )


def check_memory_and_disk(s, config, loaded=0):
    """Refuse a run that does not fit into memory, or whose checkpoints do not fit on the disk.

    So many bytes of what it needs are in memory already.
    """
    need, free = estimate(config, s.B, s.T, s.recompute, s.optimizer), available_memory()
    print(f"memory of a step: {need}" + (f" (available {free / 1e9:.2f} GB)" if free else ""))
    if free is not None and need.total > free + loaded:
        advice = "" if s.recompute else " (recompute, or a smaller B or T, takes less)"
        raise ArgumentError(
            f"a step takes {need.total / 1e9:.2f} GB of memory, but {free / 1e9:.2f} GB are"
            f" available{advice}"
        )
    checkpoint = need.parameters + need.moments
    disk = shutil.disk_usage(nearest_existing_parent(s.run)).free
    more = max(1, s.keep + 2 - len(checkpoint_steps(s.run)))
    if checkpoint * more > disk:
        raise ArgumentError(
            f"run: {more} checkpoints of {checkpoint / 1e9:.2f} GB (those to keep, the best and the"
            f" one being written) do not fit into the {disk / 1e9:.2f} GB free in {s.run}"
        )


def nearest_existing_parent(path):
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
    with model.backend.computing(6 * N * model.params.flat.size):  # in float32
        model.layers.matmul_forward(x, w)  # compiles, and takes memory for the first time
        start = time.perf_counter()
        model.layers.matmul_forward(x, w)
        rate = 2 * N * w.size / (time.perf_counter() - start)
    attention = 12 * model.config.n_layer * B * T * T * C / 2  # two products, three passes
    flops = 6 * count_parameters(model.config) * N + attention
    return 1.25 * accumulation * flops / rate

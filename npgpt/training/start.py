"""The model that a training run starts from, and about how long its steps will take."""

import re
import time

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import count_parameters
from npgpt.data.tokenizer import GPT2Tokenizer, tokenizer_from
from npgpt.errors import ArgumentError
from npgpt.formats.models import load_model
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import check_memory
from npgpt.training.run import check_disk

CHANNELS = {6: 384, 12: 768, 24: 1024, 36: 1280, 48: 1600}  # of llm.c's d6, ... d48
GPT2_CONTEXT = 1024
SIZES = ("n_layer", "n_head", "n_embd")


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
    data.check_fits(config, s.T)
    check_disk(s, check_memory(config, s.B, s.T, s.recompute, s.optimizer, loaded))
    return model_of(s, config, params, tokenizer)


def model_of(s, config, params, tokenizer):
    """A GPT2 on these Parameters, or on new ones, that computes as the Settings say."""
    model = GPT2(config, s.seed, params=params, **s.model_options)
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


def step_seconds(model, B, T, accumulation):
    """About how long an update will take, from the time of one of its products -> seconds."""
    C, N = model.config.n_embd, B * T
    w = model.params.fcw[0]
    x = np.ones((1, N, C), w.dtype)
    with model.computing(6 * N):
        model.layers.matmul_forward(x, w)  # compiles, and takes memory for the first time
        start = time.perf_counter()
        model.layers.matmul_forward(x, w)
        rate = 2 * N * w.size / (time.perf_counter() - start)
    attention = 12 * model.config.n_layer * B * T * T * C / 2  # two products, three passes
    flops = 6 * count_parameters(model.config) * N + attention
    return 1.25 * accumulation * flops / rate

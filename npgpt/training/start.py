"""The model that a training run starts from, and an estimate of the time of its steps."""

import re
import time

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import count_parameters
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.tokenizer import GPT2Tokenizer
from npgpt.errors import ArgumentError
from npgpt.formats.models import load_model
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import check_memory
from npgpt.parallel.communicator import ALONE
from npgpt.parallel.weights import read_at_rank_0
from npgpt.training.run import check_disk

CHANNELS = {
    6: 384,
    12: 768,
    24: 1024,
    36: 1280,
    48: 1600,
}  # n_layer -> n_embd of llm.c's d6, ..., d48
GPT2_CONTEXT = 1024
OVERHEAD = 1.25  # of a step over its matrix products and attention: layernorm, gelu, AdamW, ...
SIZES = ("n_layer", "n_head", "n_embd")


def make_model(s, data, quiet=False, comm=ALONE):
    """The GPT2 that the Settings start from, with its tokenizer, the same at all ranks of comm.

    quiet: as in check_memory.
    """
    depth_match = re.fullmatch(r"d(\d+)", s.model)
    if s.model and not depth_match:
        given = [name for name in (*SIZES, "block_size", "vocab_size") if getattr(s, name)]
        if given:
            raise ArgumentError(
                f"{given[0]} applies only to a model from scratch, not to {s.model}"
            )
        params, description = read_at_rank_0(comm, load_model, s.model)
        config, loaded = params.config, params.flat.nbytes
    else:
        params, description, loaded = None, None, 0
        config = config_from_scratch(s, depth_match, data.tokenizer_description)
    tokenizer = data.reconcile_tokenizers(s.model, description)
    data.check_fits(config, s.T)
    check_room(s, config, loaded, quiet, comm)
    model = build_model(s, config, params, tokenizer)
    if params is None:
        comm.broadcast(model.params.flat)
    return model


def check_room(s, config, loaded, quiet, comm, resumed=False):
    """Raise ArgumentError where memory or, at rank 0, the disk is too small for the run.

    loaded, quiet, resumed: as in check_memory.
    """
    B, _ = s.share(comm.size)
    shards = comm.size if s.in_shards(comm.size) else 1
    recompute = s.model_options["recompute"]
    check_memory(
        config, B, s.T, recompute, s.optimizer, loaded, quiet, resumed, shards, comm.ranks_here
    )
    if comm.rank == 0:
        check_disk(s, config)
    comm.gather([])  # no rank takes memory before all have seen what is available


def build_model(s, config, params, tokenizer):
    """A GPT2 on these Parameters, or on new ones (None), with the options of the Settings."""
    model = GPT2(config, s.seed, params=params, **s.model_options)
    model.tokenizer = tokenizer
    return model


def config_from_scratch(s, depth_match, description):
    """The GPT2Config of the Settings; depth_match is that of model d6, d12, ..., or None."""
    sizes = {name: getattr(s, name) for name in SIZES}
    if depth_match:
        layers = int(depth_match[1])
        if layers not in CHANNELS:
            known = ", ".join(f"d{n}" for n in CHANNELS)
            raise ArgumentError(f"model must be one of {known}, not {s.model}")
        if any(sizes.values()):
            raise ArgumentError(
                f"model {s.model} sets n_layer, n_head and n_embd: do not give them"
            )
        sizes = {"n_layer": layers, "n_head": CHANNELS[layers] // 64, "n_embd": CHANNELS[layers]}
    elif not all(sizes.values()):
        raise ArgumentError(
            "--model must name what to start from (gpt2, d12, a file, ...), or --n-layer, --n-head"
            " and --n-embd the size of a new one, such as --n-layer 4 --n-head 4 --n-embd 128"
        )
    tokenizer = tokenizer_from_description(description) if description else GPT2Tokenizer
    tokenizer_size = tokenizer.vocab_size
    if description and 0 < s.vocab_size < tokenizer_size:
        raise ArgumentError(
            f"vocab_size must be at least {tokenizer_size}, the tokenizer's, not {s.vocab_size}"
        )
    return GPT2Config(
        block_size=s.block_size or (GPT2_CONTEXT if depth_match else s.T),
        vocab_size=s.vocab_size or tokenizer_size,
        **sizes,
    )


def estimate_step_seconds(model, B, T, grad_accum_steps):
    """Estimate the seconds of an update from the measured time of one matrix product."""
    C, N = model.config.n_embd, B * T
    w = model.params.fcw[0]
    x = np.ones((1, N, C), w.dtype)
    with model.computing(6 * N):
        model.layers.matmul_forward(x, w)  # compiles, and takes memory for the first time
        start = time.perf_counter()
        model.layers.matmul_forward(x, w)
        rate = 2 * N * w.size / (time.perf_counter() - start)
    # q @ k.T and att @ v: 4 B T^2 C flops forward, twice that backward; half by the causal mask
    attention = 12 * model.config.n_layer * B * T * T * C / 2
    flops = 6 * count_parameters(model.config) * N + attention
    return OVERHEAD * grad_accum_steps * flops / rate

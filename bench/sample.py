"""Sampling from GPT-2 124M: npgpt and others in turn, each in a fresh process.

python -m bench.sample                      64 tokens after a prompt of 64, greedy
python -m bench.sample --prompt-tokens 900 --rounds 3
python -m bench.sample -B 16                16 samples at once, each after a prompt of its own
python -m bench.sample --only npgpt         one of them, in this process: a line of JSON

The others are Hugging Face's transformers and, where they are installed, CTranslate2 and llama.cpp.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import tables
from bench.machine import describe, median_time
from bench.options import make_parser, require
from bench.peers import ctranslate2, llamacpp
from bench.results import write_result
from bench.turns import child, take_turns
from npgpt.cli import program

VOCAB_SIZE = 50257
WARM_UP = 8  # tokens that do not count: the kernels are compiled on a new machine


def npgpt_generate(prompt, weight_format="fp32"):
    """A function that generates a number of tokens after each prompt of (B, T)."""
    import npgpt

    model = npgpt.GPT2(npgpt.GPT2Config(), weight_format=weight_format)
    return lambda count: model.generate(prompt, count, temperature=0)


def transformers_generate(prompt, dtype="float32"):
    """The same, with transformers' own model, generate and cache."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from npgpt import get_threads

    torch.set_num_threads(get_threads())
    model = GPT2LMHeadModel(GPT2Config()).eval().to(getattr(torch, dtype))
    tokens = torch.from_numpy(prompt)
    settings = {"do_sample": False, "use_cache": True, "pad_token_id": VOCAB_SIZE - 1}

    def generate(count):
        settings.update(min_new_tokens=count, max_new_tokens=count)
        with torch.inference_mode():
            return model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)

    return generate


SYSTEMS = {
    "npgpt": npgpt_generate,
    "npgpt, bf16": lambda prompt: npgpt_generate(prompt, "bf16"),
    "npgpt, int8": lambda prompt: npgpt_generate(prompt, "int8"),
    "npgpt, int4": lambda prompt: npgpt_generate(prompt, "int4"),
    "transformers": transformers_generate,
    "transformers, bf16": lambda prompt: transformers_generate(prompt, "bfloat16"),
}
PEERS = {  # they read files that bench.peers has written
    **dict.fromkeys(ctranslate2.COMPUTE_TYPES, ctranslate2),
    **dict.fromkeys(llamacpp.FILE_TYPES, llamacpp),
}


def run_one(system, folder, B, prompt_tokens, tokens, runs):
    """Tokens a second of each run, the prompts' pass included; folder has the model to read."""
    prompt = np.random.default_rng(0).integers(0, VOCAB_SIZE, (B, prompt_tokens))
    if system in PEERS:
        generate = PEERS[system].generate(prompt, folder, system)
    else:
        generate = SYSTEMS[system](prompt)
    generate(WARM_UP)
    speeds = []
    for _ in range(runs):
        start = time.perf_counter()
        out = generate(tokens)
        speeds.append(B * tokens / (time.perf_counter() - start))
        assert out.shape == (B, prompt_tokens + tokens), out.shape
    return speeds


def limit():
    """Tokens a second if a token took no more than reading the weights from memory once."""
    from numba import prange

    from npgpt import GPT2Config
    from npgpt.core.parameters import count_parameters
    from npgpt.core.threads import threads
    from npgpt.kernels.codegen.jit import jit

    weights = np.ones((4, count_parameters(GPT2Config()) // 4), np.float32)

    @jit(parallel=True, makes_arrays=True)
    def total(x):
        result = x.dtype.type(0)
        for i in prange(x.shape[1]):  # four places at a time are read faster than one
            result += x[0, i] + x[1, i] + x[2, i] + x[3, i]
        return result

    with threads():
        return [1 / median_time(lambda: total(weights))]


@program
def main(argv=None, prog=None):
    """Measure the systems, write the result and print its table; or with --only one system."""
    parser = make_parser(prog, __doc__, B=1, prompt_tokens=64, tokens=64, rounds=5, runs=3)
    parser.add_argument(
        "--only", choices=[*SYSTEMS, *PEERS, "limit"], help="run it in this process"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER",
        help="for --only CTranslate2 or llama.cpp: what `python -m bench.peers FOLDER` has written",
    )  # fmt: skip
    args = parser.parse_args(argv)
    sizes = {name: getattr(args, name) for name in ("B", "prompt_tokens", "tokens", "runs")}
    if args.prompt_tokens + max(args.tokens, WARM_UP) > 1024:
        parser.error(
            "--prompt-tokens and --tokens must be at most 1024 together, the block_size, and"
            f" --prompt-tokens at most {1024 - WARM_UP}"
        )
    if args.only in PEERS and args.model is None:
        parser.error(f"--only {args.only} needs --model: see --help")
    if args.only == "limit":
        print(json.dumps(limit()))
        return 0
    if args.only:
        print(json.dumps(run_one(args.only, args.model, **sizes)))
        return 0
    require(parser, "torch", "transformers")
    with tempfile.TemporaryDirectory() as folder:
        others = ctranslate2.systems() + llamacpp.systems()
        if others:
            child("bench.peers", folder)
        words = (
            "--model", folder, "-B", args.B, "--prompt-tokens", args.prompt_tokens,
            "--tokens", args.tokens, "--runs", args.runs,
        )  # fmt: skip
        runs = take_turns(
            [*SYSTEMS, *others, "limit"],
            args.rounds,
            lambda name: child("bench.sample", "--only", name, *words),
        )
    systems = {name: [speed for run in its for speed in run] for name, its in runs.items()}
    content = {**sizes, "rounds": args.rounds, "limit": systems.pop("limit"), "systems": systems}
    batch = f"{args.B}x" if args.B > 1 else ""
    name = f"sample_{batch}{args.prompt_tokens}x{args.tokens}"
    result, path = write_result("sample", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Sampling from GPT-2 124M: npgpt and Hugging Face's transformers in turn, in fresh processes.

python -m bench.sample                      64 tokens after a prompt of 64, greedy, float32
python -m bench.sample --length 900 --rounds 3
python -m bench.sample --only npgpt         one of them, in this process: a line of JSON
"""

import argparse
import importlib.util
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bench.machine import describe, median_time
from bench.step import ROOT, child

VOCAB_SIZE = 50257
WARM_UP = 8  # tokens that do not count: the kernels are compiled on a new machine


def npgpt_generate(prompt, precision="fp32"):
    """A function that generates so many tokens after prompt (1, T)."""
    import npgpt

    model = npgpt.GPT2(npgpt.GPT2Config(), precision=precision)
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
    "transformers": transformers_generate,
    "transformers, bf16": lambda prompt: transformers_generate(prompt, "bfloat16"),
}


def run_one(system, length, count, runs):
    """Tokens a second of each run, the prompt's pass included."""
    prompt = np.random.default_rng(0).integers(0, VOCAB_SIZE, (1, length))
    generate = SYSTEMS[system](prompt)
    generate(WARM_UP)
    speeds = []
    for _ in range(runs):
        start = time.perf_counter()
        out = generate(count)
        speeds.append(count / (time.perf_counter() - start))
        assert out.shape == (1, length + count), out.shape
    return {"tokens_per_second": speeds}


def limit():
    """Tokens a second if a token took no more than reading the weights from memory once."""
    from numba import prange

    from npgpt import GPT2Config
    from npgpt.kernels.codegen.jit import jit
    from npgpt.parameters import count_parameters
    from npgpt.threads import threads

    weights = np.ones((4, count_parameters(GPT2Config()) // 4), np.float32)

    @jit(parallel=True)
    def total(x):
        result = x.dtype.type(0)
        for i in prange(x.shape[1]):  # four places at a time are read faster than one
            result += x[0, i] + x[1, i] + x[2, i] + x[3, i]
        return result

    with threads():
        return {"tokens_per_second": [1 / median_time(lambda: total(weights))]}


def summary(runs):
    """Median, least and most tokens a second of all of a system's runs."""
    speeds = [speed for run in runs for speed in run["tokens_per_second"]]
    return {"median": statistics.median(speeds), "least": min(speeds), "most": max(speeds)}


def table(results, length, count):
    """The lines of the README's table."""
    ours = [results[name]["median"] for name in ("npgpt", "npgpt, bf16", "npgpt, int8")]
    lines = [
        f"| {count} tokens after {length}, greedy | tokens/s (range) | npgpt's / its |"
        " in bf16 / its | in int8 / its |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, r in results.items():
        ratios = " | ".join(f"{our / r['median']:.2f}" for our in ours)
        lines.append(
            f"| {name} | {r['median']:.1f} ({r['least']:.1f} to {r['most']:.1f}) | {ratios} |"
        )
    return lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=64, metavar="T", help="default: 64")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="a round; default: 3")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="FOLDER")
    parser.add_argument("--only", choices=[*SYSTEMS, "limit"], help="run it in this process")
    args = parser.parse_args()
    for option in ("length", "tokens", "rounds", "runs"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} must be at least 1, not {getattr(args, option)}")
    if args.length + args.tokens > 1024:
        parser.error("--length and --tokens must be at most 1024 together, GPT-2's block_size")
    if args.only:
        alone = limit if args.only == "limit" else run_one
        words = () if args.only == "limit" else (args.only, args.length, args.tokens, args.runs)
        print(json.dumps(alone(*words)))
        return
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            parser.error(f"{package} is missing: pip install -e '.[reference]'")
    args.out.mkdir(parents=True, exist_ok=True)
    names = [*SYSTEMS, "limit"]
    runs = {name: [] for name in names}
    sizes = ("--length", args.length, "--tokens", args.tokens, "--runs", args.runs)
    for turn in range(args.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            runs[name].append(child("bench.sample", "--only", name, *sizes))
            speed = summary(runs[name][-1:])["median"]
            print(f"round {turn + 1} of {args.rounds}, {name}: {speed:.1f} tokens/s", flush=True)
    results = {name: summary(runs[name]) for name in names}
    machine = {**describe(), "transformers": version("transformers")}
    path = args.out / f"sample_{args.length}x{args.tokens}.json"
    sizes = {"length": args.length, "tokens": args.tokens}
    path.write_text(json.dumps({"machine": machine, **sizes, "results": results}, indent=1) + "\n")
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine.items()))
    print("\n".join(table(results, args.length, args.tokens)))
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()

"""A training step of GPT-2 124M: npgpt and PyTorch in turn, each time in a fresh process.

python -m bench.step                        B=4, T=64, and where the time goes
python -m bench.step --length 1024 --rounds 2 --steps 2
python -m bench.step --lengths              npgpt alone, T = 64, 128, ... 1024

Where the time goes, and how it grows with T, is npgpt's in float32 or in another --precision.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from npgpt.precision import PRECISIONS, check_precision

from bench.machine import describe
from bench.profile import profile
from bench.systems import SYSTEMS
from npgpt import ArgumentError, get_threads

ROOT = Path(__file__).parents[1]
DEFAULT = ["npgpt", "npgpt, recompute", "PyTorch, eager", "PyTorch, compiled"]


def child(*command):
    """The JSON that a module prints last, run in a process of its own."""
    command = [sys.executable, "-m", *map(str, command)]
    env = {**os.environ, "OMP_NUM_THREADS": str(get_threads())}  # the same for all of them
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(systems, B, T, rounds, steps):
    """Each system's runs and the machine's limits, round by round so that all see the same hour."""
    runs, limits = {system: [] for system in systems}, []
    for turn in range(rounds):
        for system in systems[turn % len(systems) :] + systems[: turn % len(systems)]:
            options = ("--batch", B, "--length", T, "--steps", steps)
            run = child("bench.systems", system, *options)
            runs[system].append(run)
            text = ", ".join(f"{seconds:.2f}" for seconds in run["seconds"])
            print(f"round {turn + 1} of {rounds}, {system}: {text} s", flush=True)
        limits.append(child("bench.machine", B, T))
    return runs, limits


def summary(runs):
    """Median seconds of a system over all its steps, their range, its first step and its peak."""
    seconds = [second for run in runs for second in run["seconds"]]
    return {
        "median": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
        "first": statistics.median(run["first"] for run in runs),
        "peak": max(run["peak"] for run in runs),
    }


def table(results, B, T, limit):
    """The lines of the README's table."""
    ours = results["npgpt"]
    lines = [
        f"| B={B}, T={T} | seconds (range) | tokens/s | peak memory | time / npgpt's |",
        "| --- | --- | --- | --- | --- |",
    ]
    for system, r in results.items():
        lines.append(
            f"| {system} | {r['median']:.2f} ({r['least']:.2f} to {r['most']:.2f})"
            f" | {B * T / r['median']:.0f} | {r['peak'] / 1e9:.2f} GB"
            f" | {r['median'] / ours['median']:.2f} |"
        )
    share = limit / ours["median"]
    lines.append(f"| NumPy's sgemm and AdamW's bytes alone | {limit:.2f} | | | {share:.2f} |")
    return lines


def chart(path, results, parts, B, T, precision="fp32"):
    """Two bars' worth of pictures: seconds a system, and where npgpt's go."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
    names = list(results)[::-1]
    medians = [results[name]["median"] for name in names]
    colours = ["#1f6f8b" if name.startswith("npgpt") else "#c9c9c9" for name in names]
    left.bar_label(left.barh(names, medians, color=colours), fmt="%.2f s", padding=3)
    left.set(title=f"a training step of GPT-2 124M, B={B}, T={T}", xlabel="seconds")
    left.margins(x=0.15)
    names = sorted(parts, key=parts.get)
    shares = [100 * parts[name] / sum(parts.values()) for name in names]
    right.bar_label(right.barh(names, shares, color="#1f6f8b"), fmt="%.1f %%", padding=3)
    right.set(title=f"where npgpt's step in {precision} spends it", xlabel="per cent of the step")
    right.margins(x=0.15)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="default: 4")
    parser.add_argument("--length", type=int, default=64, metavar="T", help="default: 64")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="a round; default: 5")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT, metavar="NAME")
    parser.add_argument("--lengths", action="store_true", help="npgpt alone, T = 64 to 1024")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="FOLDER")
    args = parser.parse_args()
    for option in ("batch", "length", "rounds", "steps"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} must be at least 1, not {getattr(args, option)}")
    try:
        check_precision(args.precision)
    except ArgumentError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    if args.lengths:
        return lengths(args)
    needed = ["matplotlib"] + ["torch"] * any(name.startswith("PyTorch") for name in args.systems)
    for package in needed:
        if importlib.util.find_spec(package) is None:
            parser.error(f"{package} is missing: pip install -e '.[bench]' (see CONTRIBUTING.md)")
    if "npgpt" not in args.systems:
        parser.error("--systems must have npgpt among them, to which the others are compared")
    B, T = args.batch, args.length
    machine = describe()
    runs, limits = in_turn(args.systems, B, T, args.rounds, args.steps)
    results = {system: summary(runs[system]) for system in args.systems}
    limit = {key: statistics.median(one[key] for one in limits) for key in limits[0]}
    parts = profile(B, T, args.steps, args.precision)
    name = args.out / f"step_{B}x{T}"
    content = {
        "machine": machine, "batch": B, "length": T, "results": results, "limit": limit,
        "parts_in": args.precision, "parts": parts,
    }  # fmt: skip
    name.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    chart(name.with_suffix(".png"), results, parts, B, T, args.precision)
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine.items()))
    print("\n".join(table(results, B, T, limit["sgemm"] + limit["adamw"])))
    whole = sum(parts.values())
    shares = ", ".join(f"{key} {100 * s / whole:.1f} %" for key, s in parts.items())
    print(f"\nnpgpt's step in {args.precision}: {shares}")
    print(f"\nwrote {name.with_suffix('.json')} and {name.with_suffix('.png')}")


def lengths(args):
    """Print how a step's time grows with T."""
    system = "npgpt" if args.precision == "fp32" else f"npgpt, {args.precision}"
    content = {"machine": describe(), "batch": args.batch, "system": system, "seconds": {}}
    print("| T | seconds | ms a token | peak memory |\n| --- | --- | --- | --- |")
    for T in (64, 128, 256, 512, 1024):
        options = ("--batch", args.batch, "--length", T, "--steps", args.steps)
        run = summary([child("bench.systems", system, *options)])
        content["seconds"][T] = run["median"]
        token = 1000 * run["median"] / (args.batch * T)
        print(
            f"| {T} | {run['median']:.2f} | {token:.2f} | {run['peak'] / 1e9:.2f} GB |", flush=True
        )
    (args.out / "lengths.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

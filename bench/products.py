"""A step's matrix products, by npgpt in each precision, by NumPy and by PyTorch: in turn.

    python -m bench.products [--batch 4] [--length 64] [--rounds 3]

Each system has a process of its own in every round. In bf16, npgpt takes and gives float32, and
rounds as it goes; PyTorch's operands and result are bf16 already or, in the row "and casts",
float32 too, as they are in a training step.
"""

import argparse
import importlib.util
import json
import statistics
import sys
from functools import partial
from pathlib import Path

from bench.machine import describe, median_time, operands, products
from bench.step import child
from npgpt import ArgumentError, get_threads
from npgpt.precision import PRECISIONS, check_precision, computing_in


def numpy_product(x, y, out):
    """A function that computes out = x @ y."""
    import numpy as np

    return lambda: np.matmul(x, y, out=out)


def npgpt_product(x, y, out, precision="fp32"):
    from npgpt.kernels.products.product import product
    from npgpt.threads import threads

    check_precision(precision)

    def run():
        with threads(), computing_in(precision):
            product(x, y, out)

    return run


def pytorch_product(x, y, out, bf16=False, casts=False):
    import torch

    torch.set_num_threads(get_threads())
    x, y, out = (torch.from_numpy(array) for array in (x, y, out))
    if casts:
        return lambda: out.copy_(x.bfloat16() @ y.bfloat16())
    if bf16:
        x, y, out = x.bfloat16(), y.bfloat16(), out.bfloat16()
    return lambda: torch.matmul(x, y, out=out)


SYSTEMS = {
    "NumPy": numpy_product,
    "PyTorch": pytorch_product,
    "npgpt": npgpt_product,
    **{f"npgpt, {name}": partial(npgpt_product, precision=name) for name in PRECISIONS[1:]},
    "PyTorch, bf16": partial(pytorch_product, bf16=True),
    "PyTorch, bf16 and casts": partial(pytorch_product, casts=True),
}
RATIOS = {  # of speeds: npgpt's by the other's
    "float32": ("npgpt", "NumPy"),
    "bf16": ("npgpt, bf16", "PyTorch, bf16"),
    "bf16 and casts": ("npgpt, bf16", "PyTorch, bf16 and casts"),
}


def run_one(system, B, T):
    """Seconds of each of a step's products, in the order of `products`."""
    return [
        median_time(SYSTEMS[system](*operands(kind, M, K, N)), times=5)
        for kind, M, K, N, _ in products(B, T)
    ]


def table(seconds, B, T):
    """The lines of a table: GFLOP/s of every product, and of all as often as a step has them."""
    lines = [
        f"| B={B}, T={T}: GFLOP/s | {' | '.join(seconds)} | {' | '.join(RATIOS)} |",
        "| --- |" + " --- |" * (len(seconds) + len(RATIOS)),
    ]
    shapes = list(products(B, T))
    counts = [count for *_, count in shapes]
    rows = {f"{kind}: ({M}, {K}) @ ({K}, {N})": i for i, (kind, M, K, N, _) in enumerate(shapes)}
    for name, i in rows.items():
        _, M, K, N, _ = shapes[i]
        lines.append(row(name, 2e-9 * M * K * N, {s: times[i] for s, times in seconds.items()}))
    work = sum(2e-9 * M * K * N * count for _, M, K, N, count in shapes)
    whole = {
        system: sum(n * s for n, s in zip(counts, times, strict=True))
        for system, times in seconds.items()
    }
    return [*lines, row("all of a step", work, whole)]


def row(name, work, seconds):
    speeds = " | ".join(f"{work / s:.0f}" for s in seconds.values())
    ratios = " | ".join(f"{seconds[its] / seconds[ours]:.2f}" for ours, its in RATIOS.values())
    return f"| {name} | {speeds} | {ratios} |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="default: 4")
    parser.add_argument("--length", type=int, default=64, metavar="T", help="default: 64")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: 3")
    out = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER")
    parser.add_argument("--only", choices=SYSTEMS, help="run it in this process")
    args = parser.parse_args()
    for option in ("batch", "length", "rounds"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} must be at least 1, not {getattr(args, option)}")
    if args.only:
        print(json.dumps(run_one(args.only, args.batch, args.length)))
        return
    if importlib.util.find_spec("torch") is None:
        parser.error("torch is missing: pip install -e '.[bench]' (see CONTRIBUTING.md)")
    try:
        check_precision("bf16")
    except ArgumentError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    runs = {system: [] for system in SYSTEMS}
    for turn in range(args.rounds):
        for system in SYSTEMS:
            print(f"round {turn + 1} of {args.rounds}, {system}", file=sys.stderr, flush=True)
            options = ("--batch", args.batch, "--length", args.length)
            runs[system].append(child("bench.products", "--only", system, *options))
    seconds = {
        system: [statistics.median(times) for times in zip(*rounds, strict=True)]
        for system, rounds in runs.items()
    }
    machine = describe()
    content = {"machine": machine, "batch": args.batch, "length": args.length, "seconds": seconds}
    path = args.out / f"products_{args.batch}x{args.length}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(", ".join(f"{key} {value}" for key, value in machine.items()) + "\n")
    print("\n".join(table(seconds, args.batch, args.length)))
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()

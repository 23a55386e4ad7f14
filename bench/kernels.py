"""Every kernel against its textbook, and against what the machine allows.

    python -m bench.kernels [--batch 4] [--length 64]

The limit of a layer is the bytes that it must read and write at the speed of memory, or its
floating-point operations at the speed of NumPy's sgemm on large matrices, whichever takes longer.
What the caches hold is faster than memory, so that a small batch can be above its limit.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from bench.machine import ADAMW_BYTES, describe, median_time, memory_speed

C, NH, V = 768, 12, 50257


def cases(B, T):
    """Name, arguments of the forward pass, bytes and flops forward and backward."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    N, rows = B * T, min(B * T, 256)
    tokens, targets = rng.integers(0, V, (B, T)), rng.integers(0, V, (1, rows))
    wte, wpe = 0.02 * normal(V, C), normal(1024, C)
    x, x4 = normal(B, T, C), normal(B, T, 4 * C)
    pairs = 2 * B * NH * T * (T + 1) // 2 * (C // NH)  # flops of one causal product
    word = 4
    yield "encoder", (tokens, wte, wpe), (2 * N * C * word, 0), ((3 * N + V) * C * word, 0)
    yield "layernorm", (x, normal(C), normal(C)), (2 * N * C * word, 0), (3 * N * C * word, 0)
    yield (
        "attention",
        (normal(B, T, 3 * C), NH),
        (4 * N * C * word, 2 * pairs),
        (
            7 * N * C * word,
            5 * pairs,
        ),
    )
    yield "gelu", (x4,), (8 * N * C * word, 0), (12 * N * C * word, 0)
    matmul = (x, normal(4 * C, C), normal(4 * C))
    flops = 2 * N * C * 4 * C
    yield (
        "matmul",
        matmul,
        ((5 * N * C + 4 * C * C) * word, flops),
        (
            (6 * N * C + 8 * C * C) * word,
            2 * flops,
        ),
    )
    head = 2 * rows * C * V
    yield (
        "crossentropy",
        (normal(1, rows, C), wte, targets),
        (
            ((rows + V) * C + rows * V) * word,
            head,
        ),
        ((2 * (rows + V) * C + rows * V) * word, 2 * head),
    )


def measure(B, T):
    """Rows of name, seconds of the textbook, of the kernel, of the limit."""
    from npgpt.threads import threads

    from npgpt import kernels, layers

    large = np.ones((2048, 2048), np.float32)
    product = np.empty_like(large)
    sgemm = 2 * 2048**3 / median_time(lambda: np.matmul(large, large, out=product))
    memory = memory_speed()
    for name, arguments, *works in cases(B, T):
        seconds = {}
        for own in (layers, kernels):
            forward, backward = (getattr(own, f"{name}_{way}") for way in ("forward", "backward"))
            with threads():

                def to_backward(forward=forward, arguments=arguments):
                    out, cache = forward(*arguments)  # crossentropy's kernel uses its cache up
                    return np.ones_like(out)[()], cache

                seconds[own] = (
                    median_time(forward, lambda: arguments),  # noqa: B023
                    median_time(backward, to_backward),
                )
        for i, way in enumerate(("forward", "backward")):
            size, flops = works[i]
            yield (
                f"{name} {way}",
                seconds[layers][i],
                seconds[kernels][i],
                max(size / memory, flops / sgemm),
            )
    p = np.zeros(1 << 25, np.float32)
    arguments = (p, p.copy(), p.copy(), p.copy(), 1, 1e-4, 0.9, 0.999, 1e-8, 0.0)
    with threads():
        times = [median_time(lambda: own.adamw_update(*arguments)) for own in (layers, kernels)]  # noqa: B023
        yield "adamw, 2^25 parameters", *times, ADAMW_BYTES * p.size / memory
        times = [median_time(lambda: own.gradient_norm(p)) for own in (layers, kernels)]  # noqa: B023
        yield "gradient norm, 2^25", *times, 4 * p.size / memory
        x = np.ones((B, T, C), np.float32)
        times = [median_time(lambda: own.residual_add(x, x)) for own in (layers, kernels)]  # noqa: B023
        yield "residual", *times, 12 * x.size / memory


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="default: 4")
    parser.add_argument("--length", type=int, default=64, metavar="T", help="default: 64")
    out = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    machine = describe()
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print("\n| kernel | textbook, ms | kernel, ms | textbook / kernel | limit / kernel |")
    print("| --- | --- | --- | --- | --- |")
    rows = []
    for name, book, own, limit in measure(args.batch, args.length):
        rows.append({"name": name, "textbook": book, "kernel": own, "limit": limit})
        times = f"{1000 * book:.2f} | {1000 * own:.2f}"
        print(f"| {name} | {times} | {book / own:.1f} | {limit / own:.2f} |", flush=True)
    content = {"machine": machine, "batch": args.batch, "length": args.length}
    path = args.out / f"kernels_{args.batch}x{args.length}.json"
    path.write_text(json.dumps({**content, "kernels": rows}, indent=1) + "\n")
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()

"""Every kernel against its textbook, and against an estimate of what the machine allows.

    python -m bench.kernels [-B 4] [-T 64]

The estimate, limit in the result, is the time that a layer's bytes take at the speed of memory, or
its floating-point operations at the speed of NumPy's sgemm on large matrices, whichever is longer.
A kernel can take less where its arrays are in a cache, or where it multiplies faster than NumPy.
"""

import sys
from functools import partial

import numpy as np

from bench import tables
from bench.machine import ADAMW_BYTES, describe, median_time, memory_speed, time_calls
from bench.options import make_parser
from bench.results import write_result
from npgpt.cli import program

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
    """A row of each kernel: its name, all seconds of the textbook and of the kernel, its limit."""
    from npgpt import kernels, layers
    from npgpt.core.threads import threads

    large = np.ones((2048, 2048), np.float32)
    product = np.empty_like(large)
    sgemm = 2 * 2048**3 / median_time(lambda: np.matmul(large, large, out=product))
    memory = memory_speed()

    def row(name, function, setup, size, flops=0):
        with threads():
            textbook, kernel = (
                time_calls(getattr(own, function), partial(setup, own)) for own in (layers, kernels)
            )
        limit = max(size / memory, flops / sgemm)
        return {"name": name, "textbook": textbook, "kernel": kernel, "limit": limit}

    for name, arguments, forward, backward in cases(B, T):

        def to_backward(own, name=name, arguments=arguments):
            out, cache = getattr(own, f"{name}_forward")(*arguments)  # a kernel may use it up
            return np.ones_like(out)[()], cache

        yield row(f"{name} forward", f"{name}_forward", lambda own: arguments, *forward)  # noqa: B023
        yield row(f"{name} backward", f"{name}_backward", to_backward, *backward)
    p = np.zeros(1 << 25, np.float32)
    update = (p, p.copy(), p.copy(), p.copy(), 1, 1e-4, 0.9, 0.999, 1e-8, 0.0)
    x = np.ones((B, T, C), np.float32)
    yield row("AdamW, 2^25 parameters", "adamw_update", lambda own: update, ADAMW_BYTES * p.size)
    yield row("gradient norm, 2^25", "gradient_norm", lambda own: (p,), 4 * p.size)
    yield row("residual", "residual_add", lambda own: (x, x), 12 * x.size)


@program
def main(argv=None, prog=None):
    """Measure all kernels, write the result and print its table."""
    args = make_parser(prog, __doc__, B=4, T=64).parse_args(argv)
    rows = []
    for row in measure(args.B, args.T):
        print(row["name"], file=sys.stderr, flush=True)
        rows.append(row)
    content = {"B": args.B, "T": args.T, "kernels": rows}
    name = f"kernels_{args.B}x{args.T}"
    result, path = write_result("kernels", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

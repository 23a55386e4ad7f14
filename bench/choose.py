"""Which is faster on this CPU for a step's products, npgpt's kernel or NumPy's BLAS.

bench.products --choose runs this module once for each way and round, in a process of its own: it
prints, as JSON, the seconds that all products of a step take, each followed by another kernel of
npgpt's, as in a step. BLAS's threads and Numba's are two pools: where those of one spin when they
have nothing to do, those of the other wait, which products alone would not show.
"""

import json
import statistics
from typing import NamedTuple

import numpy as np

from bench.cells import number, table
from bench.machine import median_time, operands, products
from bench.options import make_parser
from bench.sizes import add_size, choose_size, model_name
from bench.turns import child, take_turns
from npgpt import get_threads
from npgpt.kernels.products.blas import VARIABLE, default_way


class Way(NamedTuple):
    """How products are computed, and what the environment says for it."""

    name: str
    env: dict[str, str]


SLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}  # instead of spinning
WAYS = {
    "kernel": Way("npgpt's kernel", {VARIABLE: "kernel"}),
    "blas": Way("NumPy's BLAS", {VARIABLE: "blas"}),
    "blas, sleeping": Way("NumPy's BLAS, whose threads do not spin", {VARIABLE: "blas", **SLEEP}),
}
GAIN = 1.05  # times as fast as the default, from which another way is worth its variables


def seconds_of_products(config, B, T):
    """All products of a step in the current way, each with a residual connection after it."""
    from npgpt.core.threads import threads
    from npgpt.kernels import residual_add
    from npgpt.kernels.products.product import product

    x = np.ones((B, T, config.n_embd), np.float32)
    total = 0.0
    for kind, M, K, N, count in products(B, T, config):
        left, right, out = operands(kind, M, K, N)

        def run(left=left, right=right, out=out):
            with threads():
                product(left, right, out)
                residual_add(x, x)

        total += count * median_time(run, times=5)
    return total


def choose(size, B, T, rounds):
    """Time the ways in turn and print which is fastest and what to set for it."""
    words = ("--size", size, "-B", B, "-T", T)
    runs = take_turns(
        list(WAYS), rounds, lambda way: child("bench.choose", *words, **WAYS[way].env)
    )
    seconds = {way: statistics.median(found) for way, found in runs.items()}
    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    print(
        f"The matrix products of a training step of {model_name(size)}, B={B}, T={T}, in float32,"
        f" each with another kernel after it; {get_threads()} threads, {rounds} rounds; NumPy's"
        f" BLAS is {library}."
    )
    rows = [[WAYS[way].name, number(1000 * found)] for way, found in seconds.items()]
    print("", *table(["products by", "ms"], rows), "", advice(seconds), sep="\n")


def advice(seconds):
    """A sentence: which variables to set, if a way is so much faster than the default."""
    default, best = default_way(), min(seconds, key=seconds.get)
    gain = seconds[default] / seconds[best]
    if gain < GAIN:
        return f"Nothing to set: {WAYS[default].name} is the default here and as fast as any."
    words = " ".join(f"{name}={value}" for name, value in WAYS[best].env.items())
    return f"{WAYS[best].name}: {gain:.2f} times as fast as the default here. Set {words}"


def main():
    parser = make_parser(None, __doc__, B=None, T=None)
    add_size(parser)
    args = parser.parse_args()
    config = choose_size(parser, args)
    print(json.dumps(seconds_of_products(config, args.B, args.T)))


if __name__ == "__main__":
    main()

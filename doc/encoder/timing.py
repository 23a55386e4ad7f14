"""Time the encoder on one core: the textbook, the kernel, and ways to add up repeated tokens.

    OPENBLAS_NUM_THREADS=1 python doc/encoder/timing.py

The functions of one group are called in turn; each number is the median of the rounds, of the
core's time. A fault is a page of memory that the operating system has had to clear at its first
touch. V is 8192.
"""

import resource
import statistics
import time

import numba
import numpy as np

from npgpt import kernels, layers

V, C, ROUNDS = 8192, 768, 31


def add_at(tokens, dout, dwte):
    np.add.at(dwte, tokens, dout)


def one_hot(tokens, dout, dwte):
    hot = np.zeros((tokens.size, V), np.float32)  # (N, V)
    hot[np.arange(tokens.size), tokens.ravel()] = 1
    dwte += hot.T @ dout.reshape(-1, C)


def by_sorting(tokens, dout, dwte):
    order = np.argsort(tokens.ravel(), kind="stable")  # (N,)
    values, first = np.unique(tokens.ravel()[order], return_index=True)
    dwte[values] += np.add.reduceat(dout.reshape(-1, C)[order], first, axis=0)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(group):
    """Print the median time and faults of each function in the group, name -> function."""
    seen = {name: [] for name in group}
    for _ in range(ROUNDS + 2):
        for name, function in group.items():
            before, start = faults(), time.thread_time()
            function()
            seen[name].append((1e3 * (time.thread_time() - start), faults() - before))
    for name, values in seen.items():
        ms, count = (statistics.median(column) for column in zip(*values[2:], strict=True))
        print(f"  {name:<28} {ms:8.3f} ms  ({count:.0f} faults)")


def main():
    numba.set_num_threads(1)
    rng = np.random.default_rng(0)
    wte, wpe = (rng.standard_normal((rows, C), dtype=np.float32) for rows in (V, 1024))
    there = np.zeros_like(wte), np.zeros_like(wpe)
    books = {"textbook": layers, "kernel": kernels}
    for B, T in ((4, 64), (4, 1024)):
        tokens = rng.integers(0, V, (B, T))  # (B, T)
        dout = rng.standard_normal((B, T, C), dtype=np.float32)  # (B, T, C)
        cache = tokens, wte, wpe

        def forward(own, cache=cache):
            return lambda: own.encoder_forward(*cache)

        def backward(own, *where, dout=dout, cache=cache):
            return lambda: own.encoder_backward(dout, cache, *where)

        def dwte(way, tokens=tokens, dout=dout):
            return lambda: way(tokens, dout, there[0])

        print(f"B={B}, T={T}")
        measure({f"forward, {name}": forward(own) for name, own in books.items()})
        measure({f"backward, new, {name}": backward(own) for name, own in books.items()})
        measure(
            {f"backward, add, {name}": backward(own, there, True) for name, own in books.items()}
        )
        ways = (add_at, by_sorting, one_hot) if T == 64 else (add_at, by_sorting)
        measure({f"dwte alone, {way.__name__}": dwte(way) for way in ways})


if __name__ == "__main__":
    main()

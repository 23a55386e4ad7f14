"""Lose additions: the gradient of an embedding, its positions shared out over threads.

    python doc/encoder/race.py

The gradient of the output is 1 everywhere, so each element of the embedding's gradient counts how
often a token occurs, and what is missing was lost. Beside it the kernel, which shares out columns.
"""

import numpy as np
from numba import get_num_threads, njit, prange

from npgpt import kernels

V, C, N, RUNS = 16, 768, 1 << 14, 200


@njit(parallel=True)
def by_positions(tokens, dout, dwte):
    """Adds dout (N, C) to the rows of dwte (V, C) that tokens (N,) name: wrong on two threads."""
    for n in prange(len(tokens)):
        for c in range(dwte.shape[1]):
            dwte[tokens[n], c] += dout[n, c]


def main():
    tokens = np.random.default_rng(0).integers(0, V, (1, N))  # (B, T)
    dout = np.ones((1, N, C), np.float32)  # (B, T, C)
    wte, wpe = np.zeros((V, C), np.float32), np.zeros((N, C), np.float32)

    def positions():
        dwte = np.zeros((V, C), np.float32)  # (V, C)
        by_positions(tokens[0], dout[0], dwte)
        return dwte

    def columns():
        dwte, _ = kernels.encoder_backward(dout, (tokens, wte, wpe))
        return dwte

    print(f"{get_num_threads()} threads, {RUNS} runs of {N * C} additions each")
    for function in (positions, columns):
        lost = [1 - function().sum(dtype=np.float64) / (N * C) for _ in range(RUNS)]
        wrong = np.count_nonzero(lost)
        print(f"by {function.__name__}: {wrong} runs lost some, at most {max(lost):.1%}")


if __name__ == "__main__":
    main()

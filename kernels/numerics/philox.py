"""The random numbers of npgpt/layers/dropout.py, Philox4x32-10, and a row that they drop out."""

import numpy as np

from npgpt.kernels.codegen.jit import jit
from npgpt.layers.dropout import KEY_STEPS, MASK, MULTIPLIERS, ROUNDS

M0, M1 = map(np.uint64, MULTIPLIERS)
W0, W1 = map(np.uint64, KEY_STEPS)
LOW, HALF = np.uint64(MASK), np.uint64(32)
ZERO, ONE, RANGE = np.uint64(0), np.uint64(1), np.uint64(2**32)


def drop_words(rows, *drop):
    """A Drop for kernels, uint64 (5,): threshold, both halves of the key, site, first row.

    rows: how many rows an entry of the first axis has. Without a Drop it is (0,).
    """
    words = [(d.threshold, d.key & MASK, d.key >> 32, d.site, d.before * rows) for d in drop]
    return np.array(words, np.uint64).reshape(-1)


@jit
def philox(c0, c1, c2, c3, k0, k1):
    """A counter's four words and a key's two, uint64 -> four random words of 32 bits."""
    for _ in range(ROUNDS):
        # Both operands of 32 bits for all to see: so the compiler takes the instruction for that.
        p0, p1 = M0 * (c0 & LOW), M1 * (c2 & LOW)
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


@jit
def drop_row(x, row, block, words):
    """Drop out x (N,), in place: the columns from 4 block on of this row of a matrix."""
    real = x.dtype.type
    threshold, k0, k1, site = words[0], words[1], words[2], words[3]
    scale = real(np.float64(RANGE) / np.float64(RANGE - threshold))
    first, row, zero = np.uint64(block), words[4] + np.uint64(row), real(0)
    whole = x.size // 4
    for i in range(whole):
        w0, w1, w2, w3 = philox(first + np.uint64(i), row, site, ZERO, k0, k1)
        x[4 * i] = x[4 * i] * scale if w0 >= threshold else zero
        x[4 * i + 1] = x[4 * i + 1] * scale if w1 >= threshold else zero
        x[4 * i + 2] = x[4 * i + 2] * scale if w2 >= threshold else zero
        x[4 * i + 3] = x[4 * i + 3] * scale if w3 >= threshold else zero
    if x.size % 4:
        last = philox(first + np.uint64(whole), row, site, ZERO, k0, k1)
        for j in range(x.size % 4):
            x[4 * whole + j] = x[4 * whole + j] * scale if last[j] >= threshold else zero

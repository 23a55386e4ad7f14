"""Dropout (Srivastava et al. 2014): elements become 0 at random, the rest grows; see doc/dropout/.

The random numbers are a function of a key and of an element's place (Philox4x32-10, Salmon et al.
2011). There is no state: the backward pass draws the same numbers again, in place of keeping them.
"""

import math
from typing import NamedTuple

import numpy as np

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
MASK = 0xFFFFFFFF  # the low 32 bits


class Drop(NamedTuple):
    """What is dropped: a fraction `rate`, from 0 to below 1, by a key of 64 bits and a site.

    The site, 32 bits, is for the places of a model: each has random numbers of its own. Of an array
    that is computed in parts, `before` is how many entries of its first axis come before this part:
    the parts drop what the whole would.
    """

    rate: float
    key: int
    site: int
    before: int = 0

    @property
    def threshold(self):
        """Random words of 32 bits below it are those of dropped elements."""
        return round(self.rate * 2**32)

    @property
    def scale(self):
        """What kept elements are multiplied by, so that the mean stays: 1 / (1 - rate)."""
        return 2**32 / (2**32 - self.threshold)


def key_of(seed):
    """The key of 64 bits of a seed, an integer of at least 0 or several of them."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


def philox(counter, key):
    """Four words of 32 bits, a counter, and a key of 64 bits -> four random words, uint64 arrays.

    Each word of the counter is a number or an array; they broadcast.
    """
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    m0, m1 = map(np.uint64, MULTIPLIERS)
    for i in range(ROUNDS):
        k0, k1 = (
            np.uint64((word + i * step) & MASK)
            for word, step in zip((key & MASK, key >> 32), KEY_STEPS, strict=True)
        )
        p0, p1 = m0 * c0, m1 * c2  # 64 bits, whose halves go on as words
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
    return c0, c1, c2, c3


def kept(rows, columns, drop, first=0):
    """Which elements of a matrix, whose rows count from `first` on, are kept: bool (rows, columns).

    Four columns are a block: their words are those of the counter (block, row, site, 0).
    """
    blocks, numbers = np.arange(-(-columns // 4)), first + np.arange(rows)[:, None]
    words = philox((blocks, numbers, drop.site, 0), drop.key)
    words = np.stack(np.broadcast_arrays(*words), -1).reshape(rows, -1)[:, :columns]
    return words >= drop.threshold


def dropout_forward(x, drop):
    """x (..., C) -> out of the same shape, cache: each element 0, or x times drop.scale."""
    C = x.shape[-1]
    first = drop.before * math.prod(x.shape[1:-1])
    mask = kept(x.size // C, C, drop, first).reshape(x.shape)
    return np.where(mask, x * drop.scale, 0).astype(x.dtype), drop


def dropout_backward(dout, cache):
    """dout, of the shape of x -> dx: what was dropped has no gradient, the rest is scaled alike."""
    dx, _ = dropout_forward(dout, cache)
    return dx

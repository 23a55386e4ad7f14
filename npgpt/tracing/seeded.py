"""Random numbers from integers alone, which any language makes alike.

Number i of a seed is the SplitMix64 (Steele, Lea and Flood 2014) of their sum:
z = (seed * 2^32 + i + 1) * 0x9E3779B97F4A7C15; z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
z = (z ^ z >> 27) * 0x94D049BB133111EB; z ^ z >> 31, all modulo 2^64.
"""

import numpy as np

from npgpt.core.config import is_integer
from npgpt.core.parameters import Parameters
from npgpt.errors import ArgumentError

LARGEST_SEED = 2**32 - 1
CHUNK = 1 << 20


def check_seed(seed):
    """Raise ArgumentError for a seed that is no integer from 0 to 2^32 - 1."""
    if not is_integer(seed) or not 0 <= seed <= LARGEST_SEED:
        raise ArgumentError(f"seed must be an integer from 0 to {LARGEST_SEED}, not {seed!r}")


def random_words(seed, start, count):
    """Numbers start to start + count - 1 of a seed, uint64 (count,)."""
    first = np.uint64((seed << 32) + start + 1)
    z = (first + np.arange(count, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def noise(seed, start, count):
    """Numbers of mean 0 and standard deviation 1, nearly normal: float64 (count,).

    The four 16-bit parts of each word are added; that has a mean of 131070 and a variance of
    4 (65536^2 - 1) / 12, and no number is farther than 3.5 from 0.
    """
    parts = random_words(seed, start, count).astype("<u8").view("<u2").reshape(count, 4)
    return (parts.astype(np.float64).sum(-1) - 131070) / np.sqrt((65536.0**2 - 1) / 3)


def random_batch(seed, B, T, vocab_size):
    """Tokens and targets, each (B, T): B * T + 1 words modulo vocab_size, the targets one on."""
    check_seed(seed)
    words = random_words(seed, 2**31, B * T + 1) % np.uint64(vocab_size)
    ids = words.astype(np.int64)
    return ids[:-1].reshape(B, T), ids[1:].reshape(B, T).copy()


def random_parameters(config, seed):
    """Weights in which no mistake hides: noise in all sixteen tensors, biases too -> Parameters.

    The noise of matrices is divided by the root of their inputs' number, so that activations are
    around 1 everywhere; that of wte, wpe and the vectors is divided by 4, and layernorms' weights
    are around 1. Word i is that of element i of the model file, unpadded.
    """
    check_seed(seed)
    params = Parameters(config)
    scales = {"qkvw": config.n_embd, "attprojw": config.n_embd, "fcw": config.n_embd,
              "fcprojw": 4 * config.n_embd}  # fmt: skip
    start = 0
    for name, view in params.items():
        flat = view.reshape(-1)
        mean = 1.0 if name in ("ln1w", "ln2w", "lnfw") else 0.0
        divisor = np.sqrt(float(scales.get(name, 16)))
        for i in range(0, flat.size, CHUNK):
            piece = flat[i : i + CHUNK]
            piece[:] = mean + noise(seed, start + i, piece.size) / divisor
        start += flat.size
    return params

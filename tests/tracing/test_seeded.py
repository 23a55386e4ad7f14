"""Random numbers that any language can make."""

import hashlib

import numpy as np
import pytest

from npgpt import ArgumentError, GPT2Config
from npgpt.tracing.seeded import noise, random_batch, random_parameters, random_words


def splitmix64(seed, i):
    """The definition, with Python's integers."""
    z = ((seed << 32) + i + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_words_are_those_of_the_definition():
    assert random_words(0, 0, 1)[0] == 0xE220A8397B1DCDAF  # as published for SplitMix64
    for seed in (0, 1, 2**32 - 1):
        expected = [splitmix64(seed, i) for i in range(100, 120)]
        assert random_words(seed, 100, 20).tolist() == expected


def test_noise_is_of_mean_0_and_variance_1_and_bounded():
    x = noise(7, 0, 1 << 18)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01 and abs(x).max() < 3.5
    assert len(np.unique(x)) > 1 << 16
    np.testing.assert_array_equal(noise(7, 1000, 5), x[1000:1005])


def test_models_and_batches_are_the_same_for_ever():
    config = GPT2Config(block_size=6, vocab_size=9, n_layer=2, n_head=2, n_embd=8)
    params = random_parameters(config, 4)
    digest = hashlib.sha256(params.flat.tobytes()).hexdigest()
    assert digest == "d732139300e7fa96c1fd6c6e573f13fe63240b04cbbbbeb684c25b8c3eb5a67e"
    x, y = random_batch(4, 2, 6, 9)
    assert x.tolist() == [[1, 5, 6, 5, 2, 6], [4, 4, 8, 6, 0, 0]] and y[0, 0] == x[0, 1]
    for name, view in params.items():
        assert view.std() > 0.1, name  # noise in all of them
    assert abs(params.lnfw.mean() - 1) < 0.3


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ArgumentError, match="seed must be an integer from 0 to 4294967295"):
        random_batch(seed, 1, 1, 2)

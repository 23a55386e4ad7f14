"""The rules: each formula is the textbook's, and its noise covers how others compute it."""

import numpy as np
import pytest

from npgpt import GPT2Config
from npgpt.porting import rules
from npgpt.porting.rules import RULES, Sizes, resolve, rule_of
from npgpt.tracing.names import in_order
from npgpt.tracing.record import Recorder
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = GPT2Config(block_size=9, vocab_size=31, n_layer=2, n_head=2, n_embd=8)
U = 2.0**-24


@pytest.fixture(scope="module")
def oracle():
    found = {}
    recorder = Recorder(random_parameters(CONFIG, 2), *random_batch(2, 3, 7, 31))
    recorder.run(lambda name, array: found.update({name: np.array(array)}))
    return {name: a if a.dtype.kind == "i" else a.astype(float) for name, a in found.items()}


def test_every_computed_tensor_has_a_rule_that_gives_the_oracles(oracle):
    sizes, without = Sizes(CONFIG, 3, 7, U), []
    for name in in_order(2):
        rule, block = rule_of(name, 2)
        if rule is None:
            without.append(name.split(".")[0])
            continue
        formula, inputs = RULES[rule]
        arrays = [oracle[resolve(each, block, 2)] for each in inputs.split()]
        value, noise = formula(sizes, *arrays)
        right = oracle[name]
        assert np.shape(value) == right.shape and np.min(noise) >= 0, name
        assert np.abs(value - right).max() <= 1e-13 * np.abs(right).max(), name
        causal = rules.causal(np.ones((7, 7))) if right.shape[-2:] == (7, 7) else 1
        assert (U * noise >= U * abs(right) * causal * 0.99).all(), name  # what rounding it does
    assert {*without} == {
        "config", "tokens", "targets", "wte", "wpe", "ln1w", "ln1b", "qkvw", "qkvb", "attprojw",
        "attprojb", "ln2w", "ln2b", "fcw", "fcb", "fcprojw", "fcprojb", "lnfw", "lnfb",
    }  # fmt: skip


def one_by_one(x):
    """The sum along the last axis in float32, term by term."""
    return np.cumsum(x.astype("<f4"), -1, dtype="<f4")[..., -1:]


def test_a_softmax_that_adds_50257_terms_one_by_one_is_rounding(rng):
    logits = rng.standard_normal((1, 4, 50257)).astype("<f4")
    logits[..., 0] = 17  # beside which most exponentials are too small to be added
    sizes = Sizes(CONFIG, 1, 4, U)
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    naive = exps / one_by_one(exps)
    value, noise = rules.softmax(sizes, logits.astype(float))
    error = abs(naive - value)
    assert (error <= 8 * U * noise).all()
    without = noise - value * rules.lost_in_sum(sizes, value)
    assert (error > 8 * U * without).any()
    targets = np.zeros((1, 4), int)
    losses = np.log(one_by_one(exps)[..., 0]) - (logits[..., 0] - logits.max(-1))
    value, noise = rules.losses(sizes, logits.astype(float), targets)
    assert (abs(losses - value) <= 8 * U * noise).all()


@pytest.mark.parametrize("K", [48, 768, 3072])
def test_a_product_added_up_one_by_one_is_rounding(K, rng):
    x, w = rng.standard_normal((1, 20, K)), rng.standard_normal((30, K))
    x, w = np.abs(x).astype("<f4"), np.abs(w).astype("<f4")  # all of one sign: the hard case
    naive = one_by_one(x[..., None, :] * w)[..., 0]
    value, noise = rules.linear(None, x.astype(float), w.astype(float))
    assert (abs(naive - value) <= 8 * U * noise).all()
    assert (abs(naive - value) > 0.01 * U * noise).any()


def test_a_variance_by_the_mean_of_squares_is_rounding(rng):
    x = (rng.standard_normal((1, 50, 768)) + 3).astype("<f4")
    one = np.float32(1)
    m = x.mean(-1)
    naive = one / np.sqrt((x * x).mean(-1) - m * m + np.float32(1e-5))
    value, noise = rules.rstd(None, x.astype(float), m.astype(float))
    assert (abs(naive - value) <= 8 * U * noise).all()
    biased = 1 / np.sqrt(x.var(-1, dtype=float) * 768 / 767 + 1e-5)
    assert (abs(biased - value) > 8 * U * noise).all()

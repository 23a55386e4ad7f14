"""Sixteen views on one buffer, and GPT-2's initialisation."""

import copy
import math
import pickle

import numpy as np
import pytest

from npgpt import ArgumentError, GPT2Config, Parameters

CONFIG = GPT2Config(block_size=64, vocab_size=300, n_layer=3, n_head=2, n_embd=48)


def test_views_cover_the_buffer_in_order_without_gaps():
    params = Parameters(CONFIG, np.arange(Parameters(CONFIG).flat.size, dtype=np.float64))
    joined = np.concatenate([view.reshape(-1) for _, view in params.items()])
    np.testing.assert_array_equal(joined, params.flat)
    assert [name for name, _ in params.items()] == (
        "wte wpe ln1w ln1b qkvw qkvb attprojw attprojb ln2w ln2b fcw fcb fcprojw fcprojb lnfw lnfb"
    ).split()


def test_a_change_in_a_blocks_view_lands_in_the_buffer():
    params = Parameters(CONFIG)
    params.blocks[1].fcw[:] = 1
    assert params.flat.sum() == 4 * 48 * 48
    assert (params.fcw[1] == 1).all()


def test_an_assignment_copies_into_the_buffer():
    params = Parameters.init(CONFIG, seed=3)
    expected = params.flat.copy()
    view, fcw = params.wte, params.blocks[1].fcw
    params.wte = params.wte * 2.0
    params.blocks[1].fcw = np.ones_like(params.blocks[1].fcw)
    params.lnfb += 3
    assert params.wte is view and params.blocks[1].fcw is fcw
    expected[: view.size] *= 2
    expected[-48:] += 3
    params.fcw[1] = 0
    changed = Parameters(CONFIG, expected)
    changed.fcw[1] = 0
    np.testing.assert_array_equal(params.flat, changed.flat)
    params.flat = np.arange(params.flat.size)
    assert params.lnfb[-1] == params.flat.size - 1


def test_an_assignment_of_another_shape_is_refused():
    params = Parameters(CONFIG)
    with pytest.raises(ArgumentError, match=r"wte must be assigned .* \(300, 48\), not \(48,\)"):
        params.wte = np.ones(48)
    with pytest.raises(ArgumentError, match=r"fcb must be assigned .* \(192,\), not \(\)"):
        params.blocks[0].fcb = 1.0
    assert not params.flat.any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_the_views_of_a_copy_are_on_its_own_buffer(copied):
    params = Parameters.init(CONFIG, seed=3)
    other = copied(params)
    np.testing.assert_array_equal(other.flat, params.flat)
    other.flat[:] = 7
    assert all((view == 7).all() for _, view in other.items())
    assert (other.blocks[2].fcw == 7).all()
    assert (params.fcw != 7).all()


def test_a_buffer_that_does_not_fit_is_refused():
    count = Parameters(CONFIG).flat.size
    for flat in (np.zeros(count + 1), np.zeros(2 * count)[::2], np.zeros((1, count))):
        with pytest.raises(ArgumentError, match="flat must be C-contiguous of shape"):
            Parameters(CONFIG, flat)


def test_initialisation_is_gpt2s():
    params = Parameters.init(CONFIG, seed=3)
    assert params.flat.dtype == np.float32
    for name, view in params.items():
        if name in ("ln1w", "ln2w", "lnfw"):
            assert (view == 1).all()
        elif name.endswith("b"):
            assert (view == 0).all()
        else:
            residual = name in ("attprojw", "fcprojw")
            std = 0.02 / math.sqrt(6) if residual else 0.02
            assert view.std() == pytest.approx(std, rel=0.05), name
            assert abs(view.mean()) < std / 10, name


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ArgumentError, match=f"seed must be an integer of at least 0, not {seed!r}"):
        Parameters.init(CONFIG, seed=seed)


def test_initialisation_depends_on_its_seed_alone():
    one, same, other = (Parameters.init(CONFIG, seed=seed).flat for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()

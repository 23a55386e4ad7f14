"""The optimizer as an object: what it decays, how it goes on bit for bit, what it refuses."""

import copy

import numpy as np
import pytest

from npgpt import GPT2, ArgumentError, GPT2Config, Parameters, layers
from npgpt.core.parameters import HIDDEN_MATRICES, MATRICES
from npgpt.layers.muon import orthogonalize
from npgpt.model.backend import make_backend
from npgpt.model.optimizer import (
    DECAYED_PARAMS,
    OPTIMIZERS,
    AdamW,
    Muon,
    clip_scale,
    gradient_norm,
)
from npgpt.training.settings import make_settings

CONFIG = GPT2Config(block_size=5, vocab_size=11, n_layer=2, n_head=2, n_embd=8)


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    return make_backend(request.param)


@pytest.fixture
def params():
    """Weights none of which is 0, so that each of them can decay."""
    params = Parameters.init(CONFIG, seed=1)
    params.flat += 0.5
    return params


@pytest.fixture
def grads(rng):
    """The gradients of eight steps."""
    many = [Parameters(CONFIG) for _ in range(8)]
    for each in many:
        each.flat[:] = rng.standard_normal(each.flat.size)
    return many


def run(optimizer, params, grads, lr=1e-2):
    """An update with each of the gradients -> the weights' bytes."""
    for each in grads:
        optimizer.update(params, each, lr)
    return params.flat.tobytes()


def test_before_the_first_update_there_is_nothing(backend):
    optimizer = AdamW(backend)
    assert (optimizer.m, optimizer.v, optimizer.updates) == (None, None, 0)
    state = optimizer.state(CONFIG)
    assert state["updates"] == 0 and not state["m"].flat.any() and not state["v"].flat.any()
    assert state["m"].config == state["v"].config == CONFIG


@pytest.mark.parametrize("decayed", DECAYED_PARAMS)
def test_an_update_is_the_layers_one_with_the_decay_where_it_belongs(
    backend, params, grads, decayed
):
    hyper = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3}
    optimizer = AdamW(backend, **hyper, decayed_params=decayed)
    expected = {name: view.astype(np.float64) for name, view in params.items()}
    m, v = ({name: np.zeros_like(w) for name, w in expected.items()} for _ in range(2))
    run(optimizer, params, grads)
    assert optimizer.updates == 8
    for name, w in expected.items():
        decay = 0.3 if decayed == "all" or name in MATRICES else 0.0
        for step, each in enumerate(grads, start=1):
            g = getattr(each, name).astype(np.float64).reshape(-1)
            layers.adamw_update(
                w.reshape(-1), g, m[name].reshape(-1), v[name].reshape(-1), step, 1e-2,
                0.8, 0.95, 1e-6, decay, 1.0,
            )  # fmt: skip
        np.testing.assert_allclose(getattr(params, name), w, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(getattr(optimizer.m, name), m[name], atol=1e-5)
        np.testing.assert_allclose(getattr(optimizer.v, name), v[name], rtol=1e-4)


def test_matrices_alone_are_told_from_all(backend, params, grads):
    ends = {}
    for decayed in DECAYED_PARAMS:
        ends[decayed] = copy.deepcopy(params)
        run(AdamW(backend, weight_decay=0.3, decayed_params=decayed), ends[decayed], grads)
    for name, view in ends["all"].items():
        same = np.array_equal(view, getattr(ends["matrices"], name))
        assert same == (name in MATRICES), name


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("decayed", DECAYED_PARAMS)
@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_a_restored_one_goes_on_bit_for_bit(backend, params, grads, before, decayed, kind):
    def make():
        return kind(backend, (0.9, 0.95), weight_decay=0.1, decayed_params=decayed)

    one = make()
    run(one, params, grads[:before])
    state, weights = copy.deepcopy((one.state(CONFIG), params))
    expected = run(one, params, grads[before:])
    other, again = make(), copy.deepcopy(weights)
    other.restore({**copy.deepcopy(state), "step": 99, "losses": []})  # others' entries beside it
    assert run(other, again, grads[before:]) == expected
    assert other.updates == one.updates == 8
    for name in AdamW.MOMENTS:
        a, b = (o.state(CONFIG)[name].flat for o in (one, other))
        np.testing.assert_array_equal(a, b)
    for lost in ("m", "v", "updates") if before else ():  # and each part of the state is needed
        broken = {**copy.deepcopy(state), lost: 0 if lost == "updates" else Parameters(CONFIG)}
        other = make()
        other.restore(broken)
        assert run(other, copy.deepcopy(weights), grads[before:]) != expected, lost


def test_the_scale_is_that_of_the_gradients(backend, params, grads):
    other, half = copy.deepcopy(params), copy.deepcopy(grads[0])
    half.flat *= 0.5
    one, two = AdamW(backend, eps=1e-2), AdamW(backend, eps=1e-2)
    one.update(params, grads[0], 1e-2, grad_scale=0.5)
    two.update(other, half, 1e-2)
    np.testing.assert_array_equal(params.flat, other.flat)
    three = copy.deepcopy(grads[1])
    AdamW(backend, eps=1e-2).update(three, grads[0], 1e-2)  # it is not that of the rate
    assert not np.array_equal(three.flat - grads[1].flat, params.flat)


def test_an_unknown_choice_of_what_decays_is_refused_and_changes_nothing(backend):
    optimizer = AdamW(backend, (0.8, 0.9), 1e-5, 0.2, "matrices")
    message = "decayed_params must be one of matrices, all, not 'biases'"
    with pytest.raises(ArgumentError, match=message):
        optimizer.configure((0.1, 0.2), 1.0, 0.9, "biases")
    hyper = optimizer.betas, optimizer.eps, optimizer.weight_decay, optimizer.decayed_params
    assert hyper == ((0.8, 0.9), 1e-5, 0.2, "matrices")
    with pytest.raises(ArgumentError, match=message):
        AdamW(backend, decayed_params="biases")


def test_muon_orthogonalizes_each_matrix_of_the_blocks_and_leaves_the_rest_to_adamw(
    backend, params, grads
):
    before, adamw = copy.deepcopy(params), copy.deepcopy(params)
    hyper = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3, "decayed_params": "matrices"}
    optimizer = Muon(backend, **hyper, momentum=0.7, lr_ratio=5.0)
    optimizer.update(params, grads[0], 1e-2, grad_scale=0.5)
    AdamW(backend, **hyper).update(adamw, grads[0], 1e-2, grad_scale=0.5)
    C = CONFIG.n_embd
    for name, view in params.items():
        if name not in HIDDEN_MATRICES:
            np.testing.assert_array_equal(view, getattr(adamw, name), err_msg=name)
            continue
        assert not getattr(optimizer.v, name).any() and getattr(optimizer.m, name).any()
        for layer in range(CONFIG.n_layer):
            w, g, now = (getattr(x, name)[layer] for x in (before, grads[0], params))
            for rows in np.split(np.arange(len(w)), 3 if name == "qkvw" else 1):  # q, k and v
                step = orthogonalize(g[rows].astype(np.float64))  # of the momentum the direction
                expected = (
                    w[rows] * (1 - 0.05 * 0.3) - 0.05 * max(1, len(rows) / w.shape[1]) ** 0.5 * step
                )
                np.testing.assert_allclose(now[rows], expected, atol=2e-5, err_msg=name)
    assert params.qkvw.shape == (CONFIG.n_layer, 3 * C, C)


def test_a_run_with_muon_has_its_own_rate_that_follows_the_schedule():
    s = make_settings({"optimizer": "muon", "lr": 1e-3, "muon_lr": 0.04, "muon_momentum": 0.8})
    optimizer = Muon.from_settings(make_backend("numpy"), s)
    assert (optimizer.lr_ratio, optimizer.momentum) == (pytest.approx(40), 0.8)
    assert optimizer.betas == (s.beta1, s.beta2) and optimizer.precision == s.precision


def test_a_model_trained_by_muon_goes_on_with_adamw(rng):
    model = GPT2(CONFIG, seed=1, backend="numpy")
    model.optimizer = muon = Muon(model.backend)
    model.forward_backward(*rng.integers(0, 11, (2, 2, 5)))
    model.update(1e-3)
    assert type(model.optimizer) is AdamW and muon.updates == 0


def test_a_model_makes_one_and_goes_on_with_it(rng):
    model = GPT2(CONFIG, seed=1, backend="numpy")
    tokens, targets = rng.integers(0, 11, (2, 2, 5))
    assert model.optimizer is None
    model.forward_backward(tokens, targets)
    with pytest.raises(ArgumentError, match="decayed_params must be one of matrices, all, not 'x'"):
        model.update(1e-3, decayed_params="x")
    model.update(1e-3)
    first = model.optimizer
    model.update(1e-3, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.7, decayed_params="matrices")
    assert model.optimizer is first and first.updates == 2
    hyper = first.betas, first.eps, first.weight_decay, first.decayed_params
    assert hyper == ((0.5, 0.6), 1e-3, 0.7, "matrices")


def test_norm_and_clipping(backend, grads):
    norm = gradient_norm(grads[0], backend)
    assert norm == pytest.approx(np.linalg.norm(grads[0].flat.astype(np.float64)), rel=1e-6)
    assert clip_scale(norm, 2 * norm) == 1.0
    assert clip_scale(norm, norm / 4) == pytest.approx(0.25, rel=1e-5)
    assert clip_scale(0.0, 1.0) == 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_of_the_table_has_what_a_run_asks_for(name, backend, params, grads):
    kind = OPTIMIZERS[name]
    optimizer, before = kind(backend), params.flat.copy()
    run(optimizer, params, grads)
    assert np.isfinite(params.flat).all() and not np.array_equal(params.flat, before)
    state = optimizer.state(CONFIG)
    assert state["updates"] == 8
    moments = [key for key, value in state.items() if isinstance(value, Parameters)]
    assert moments == list(kind.MOMENTS)  # in the order in which a checkpoint keeps them
    assert kind.state_bytes(CONFIG) == sum(state[key].flat.nbytes for key in moments)
    other, again = kind(backend), copy.deepcopy(params)
    other.restore(copy.deepcopy(state))
    assert run(other, again, grads) == run(optimizer, params, grads)

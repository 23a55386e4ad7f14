"""Every tensor of a pass: the model's own results, in the order of their names."""

import numpy as np
import pytest
from helpers import TINY_STATE

from npgpt import GPT2, ArgumentError, GPT2Config, layers
from npgpt.core.parameters import TENSOR_NAMES, Parameters
from npgpt.model.passes import gpt2_forward_backward
from npgpt.tracing.names import block_of, in_order, select, shape_of, split_name
from npgpt.tracing.record import Recorder, Updates
from npgpt.tracing.seeded import random_batch, random_parameters

assert TINY_STATE


def recorded(*arguments, **options):
    """All tensors of a Recorder by name, copied, and their order."""
    recorder, found, order = Recorder(*arguments, **options), {}, []

    def see(name, array):
        found[name] = np.array(array)
        order.append(name)

    recorder.run(see)
    return found, order, recorder


def test_names_come_in_their_order_and_arrays_in_their_shapes(params, state):
    for backend in ("oracle", "numpy"):
        found, order, recorder = recorded(params, state.x, state.y, backend, updates=Updates(2))
        assert order == recorder.names == list(in_order(2, steps=2))
        for name, array in found.items():
            assert array.shape == shape_of(name, params.config, *state.x.shape), name


def test_the_textbooks_trace_is_the_models_own_pass(params, state):
    found, _, _ = recorded(params, state.x, state.y, "numpy")
    model = GPT2(params.config, params=params, backend="numpy")
    np.testing.assert_allclose(found["logits"], model.forward(state.x), rtol=1e-5, atol=1e-5)
    loss = model.forward_backward(state.x, state.y)
    assert found["loss"] == pytest.approx(loss, rel=1e-6)
    for name, view in model.grads.items():
        parts = [name] if f"d{name}" in found else [f"{name}.{i}" for i in range(2)]
        traced = np.concatenate([found[f"d{part}"].reshape(-1) for part in parts])
        np.testing.assert_allclose(traced, view.reshape(-1), rtol=1e-4, atol=1e-7)


def test_the_oracle_is_the_textbook_in_float64(params, state):
    found, _, _ = recorded(params, state.x, state.y)
    wide = Parameters(params.config, params.flat.astype(np.float64))
    grads = wide.zeros_like()
    loss = gpt2_forward_backward(state.x.astype(int), state.y.astype(int), wide, grads, layers)
    assert found["loss"] == pytest.approx(loss, rel=1e-14)
    for name in TENSOR_NAMES:
        for part in [n for n in found if n.startswith("d") and split_name(n)[0] == f"d{name}"]:
            view = getattr(grads, name)
            view = view if block_of(part) is None else view[block_of(part)]
            assert np.abs(found[part] - view).max() <= 1e-13 * np.abs(view).max(), part


def test_the_attention_in_steps_is_the_textbooks(rng):
    from npgpt.tracing.taps import TextbookTap

    qkv, dout = rng.standard_normal((2, 5, 18)), rng.standard_normal((2, 5, 6))
    tap = TextbookTap(layers, 1, lambda name, array: None)
    tap.called = lambda function: ("atty.0" if function.endswith("forward") else "qkv.0", None, ())
    out, cache = tap.attention_forward(qkv, 3)
    expected, expected_cache = layers.attention_forward(qkv, 3)
    np.testing.assert_allclose(out, expected, rtol=1e-14)
    np.testing.assert_allclose(
        tap.attention_backward(dout, cache), layers.attention_backward(dout, expected_cache),
        rtol=1e-12, atol=1e-15,
    )  # fmt: skip


def test_updates_are_the_optimizers(params, state):
    found, _, _ = recorded(params, state.x, state.y, updates=Updates(3, 3e-3, 0.5))
    before = params.flat.copy()
    model = GPT2(params.config, params=params, backend="numpy")
    for step in range(1, 4):
        model.forward_backward(state.x, state.y)
        model.update(3e-3, weight_decay=0.5)
        norms = [np.linalg.norm(view) for _, view in model.params.items()]
        ours = found[f"step_params.{step}"]
        idle = TENSOR_NAMES.index("qkvb")  # the keys' bias steps by rounding alone, of either sign
        np.testing.assert_allclose(np.delete(ours, idle), np.delete(norms, idle), rtol=1e-5)
        norms = [np.linalg.norm(view) for _, view in model.optimizer.m.items()]
        np.testing.assert_allclose(found[f"step_m.{step}"], norms, rtol=1e-4)
        assert found[f"step_loss.{step}"] == pytest.approx(model.loss(state.x, state.y), rel=1e-4)
    assert (before != params.flat).any()  # by the model here, not by the recorder
    again, _, _ = recorded(params, state.x, state.y, updates=Updates(1))
    assert again["loss"] == found["loss"] or again["loss"] < found["loss"]


def test_the_kernels_hand_out_what_they_have(params, state):
    found, order, _ = recorded(params, state.x, state.y, "numba")
    oracle, _, _ = recorded(params, state.x, state.y)
    assert {*oracle} - {*found} == {
        "losses", "dlosses", "dlogits",
        *(f"{name}.{i}" for name in ("preatt", "att", "dpreatt", "datt") for i in range(2)),
    }  # fmt: skip
    for name in order:
        size = np.abs(oracle[name]).max()
        assert np.abs(found[name] - oracle[name]).max() <= 2e-5 * size, name


def test_sizes_of_one_and_positions_without_a_target():
    config = GPT2Config(block_size=1, vocab_size=2, n_layer=1, n_head=1, n_embd=1)
    found, _, _ = recorded(random_parameters(config, 3), *random_batch(3, 1, 1, 2))
    assert found["att.0"].tolist() == [[[[1.0]]]] and np.isfinite(found["dwte"]).all()
    config = GPT2Config(block_size=8, vocab_size=11, n_layer=1, n_head=2, n_embd=4)
    x, y = random_batch(3, 2, 8, 11)
    y[:, ::2] = -1
    found, _, _ = recorded(random_parameters(config, 3), x, y)
    assert (found["losses"][y == -1] == 0).all() and (found["dlogits"][y == -1] == 0).all()
    assert found["loss"] == pytest.approx(found["losses"][y != -1].mean(), rel=1e-14)


def test_a_choice_of_names_and_blocks():
    names = list(in_order(3, steps=1))
    assert select(names, ["qkv"])[3:] == ["qkv.0", "qkv.1", "qkv.2"]
    assert select(names, ["ln?.1", "loss"])[3:] == ["ln1.1", "ln2.1", "loss"]
    assert select(names, ["d*w"], [2])[3:] == [
        "dlnfw", "dfcprojw.2", "dfcw.2", "dln2w.2", "dattprojw.2", "dqkvw.2", "dln1w.2"
    ]  # fmt: skip
    assert "step_m.1" in select(names, None, [0]) and "att.1" not in select(names, None, [0])
    with pytest.raises(ArgumentError, match="--only: no tensor of a trace is called querys"):
        select(names, ["querys"])
    with pytest.raises(ArgumentError, match="--blocks: there are 0 to 2, and no 3"):
        select(names, None, [3])

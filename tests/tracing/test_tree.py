"""npgpt.trace: a tree of arrays, and edits with gradients that flow on."""

import numpy as np
import pytest

import npgpt
from npgpt.core.parameters import Parameters
from npgpt.inside import head, replace, scale
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = npgpt.GPT2Config(block_size=8, vocab_size=20, n_layer=2, n_head=2, n_embd=8)
BATCH = random_batch(2, 2, 6, 20)


@pytest.fixture
def small():
    return npgpt.GPT2(CONFIG, params=random_parameters(CONFIG, 2), backend="numpy")


def test_its_names_lead_to_the_models_results(small):
    trace = npgpt.trace(small, *BATCH)
    np.testing.assert_allclose(trace.logits, small.forward(BATCH[0]), rtol=1e-5, atol=1e-5)
    assert trace.loss == pytest.approx(small.loss(*BATCH), rel=1e-6)
    assert trace.blocks[1].att.shape == (2, 2, 6, 6)
    assert trace["att.1"] is trace.blocks[1].att and trace["lnf"] is trace.lnf
    small.forward_backward(*BATCH)
    np.testing.assert_allclose(trace.blocks[1].dfcw, small.grads.fcw[1], rtol=1e-4, atol=1e-7)
    assert repr(trace) == f"Trace of 2 blocks, loss {trace.loss:.6f}"


def test_a_choice_of_names_and_a_model_that_stays_as_it_was(small):
    before = small.params.flat.copy()
    trace = npgpt.trace(small, *BATCH, only=["att", "loss"], backend="oracle")
    assert {*vars(trace)} == {"blocks", "loss"} and {*vars(trace.blocks[0])} == {"att"}
    assert trace.loss.dtype == np.float64
    np.testing.assert_array_equal(small.params.flat, before)
    assert small.grads is None


EDITS = {
    "none": {},
    "a head silenced": {"atty.1": scale(0, np.arange(8) < 4)},
    "attention halved": {"att.0": scale(0.5), "preatt.1": scale(2.0)},
    "the stream patched": {"residual3.0": replace(0.3, np.arange(8) < 2)},
    "the residual patched in a position": {"residual2.1": replace(1.0, np.arange(6)[:, None] == 2)},
    "each layer": {
        "encoded": scale(1.5), "ln1.0": scale(0.5), "qkv.0": scale(2.0), "attproj.1": scale(3.0),
        "ln2.1": scale(0.5), "fch.0": scale(0.25), "fch_gelu.1": scale(-1.0),
        "fcproj.0": scale(2.0), "lnf": scale(0.5),
    },
}  # fmt: skip


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
def test_gradients_flow_on_through_edits_as_differences_say(edits, small, rng):
    trace = npgpt.trace(small, *BATCH, edits=edits, backend="oracle")
    flat = small.params.flat.astype(np.float64)

    def loss(values):
        model = npgpt.GPT2(CONFIG, params=Parameters(CONFIG, values), backend="numpy")
        return float(npgpt.trace(model, *BATCH, edits=edits, backend="oracle", only=["loss"]).loss)

    grads = Parameters(CONFIG, np.zeros_like(flat))
    for name, view in grads.items():
        if hasattr(trace, f"d{name}"):
            view[...] = getattr(trace, f"d{name}")
        else:
            view[...] = [getattr(block, f"d{name}") for block in trace.blocks]
    for _ in range(4):
        way = rng.standard_normal(flat.size)
        numeric = (loss(flat + 1e-6 * way) - loss(flat - 1e-6 * way)) / 2e-6
        assert float(grads.flat @ way) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_what_is_silenced_has_no_effect_and_no_gradient(small):
    mask = head(small, 1)
    trace = npgpt.trace(small, *BATCH, edits={"atty.0": scale(0, mask)})
    assert (trace.blocks[0].atty[..., mask] == 0).all()
    assert (trace.blocks[0].atty[..., ~mask] != 0).any()
    assert (trace.blocks[0].dattprojw[:, mask] == 0).all()
    values = trace.blocks[0].dqkv[..., 16:][..., mask]
    assert (values == 0).all() and (trace.blocks[0].dqkv[..., 16:][..., ~mask] != 0).any()
    assert (trace.blocks[0].datty[..., mask] != 0).any()  # what changing it would do


def test_patching_everything_with_its_own_value_changes_nothing(small):
    plain = npgpt.trace(small, *BATCH)
    patched = npgpt.trace(small, *BATCH, edits={"residual2.0": replace(plain["residual2.0"])})
    np.testing.assert_array_equal(patched.logits, plain.logits)
    assert (patched["dqkvw.0"] == 0).all() and (patched["dfcw.0"] == plain["dfcw.0"]).all()


def test_what_cannot_be_edited_is_named(small):
    for name in ("logits", "ln1_mean.0", "qkv", "qkv.2", "dqkv.0", "wte", "nonsense"):
        with pytest.raises(npgpt.ArgumentError, match=f"edits: {name} is not a tensor that can"):
            npgpt.trace(small, *BATCH, edits={name: scale(0)})
    with pytest.raises(npgpt.ArgumentError, match="edits: att.0 is not"):
        npgpt.trace(small, *BATCH, edits={"att.0": scale(0)}, backend="numba")
    with pytest.raises(npgpt.ArgumentError, match=r"of shape \(3,\) do not fit \(2, 6, 8\)"):
        npgpt.trace(small, *BATCH, edits={"ln1.0": scale(0, np.ones(3, bool))})
    with pytest.raises(npgpt.ArgumentError, match="h must be from 0 to 1, not 2"):
        head(small, 2)


def test_the_kernels_can_be_edited_too(small):
    edits = {"atty.1": scale(0, head(small, 0)), "fch_gelu.0": scale(2.0)}
    kernels = npgpt.trace(small, *BATCH, edits=edits, backend="numba")
    textbook = npgpt.trace(small, *BATCH, edits=edits)
    np.testing.assert_allclose(kernels["dqkvw.0"], textbook["dqkvw.0"], rtol=1e-3, atol=1e-6)
    assert kernels.loss == pytest.approx(textbook.loss, rel=1e-6)

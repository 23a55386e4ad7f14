"""The loop's pieces: accumulation, what is skipped, what stops, what goes on bit for bit."""

import copy
import math

import numpy as np
import pytest

import npgpt
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.data.tokenizer import CharsTokenizer, get_tokenizer
from npgpt.data.training_data import TrainingData
from npgpt.errors import ArgumentError, TrainingError
from npgpt.training.settings import make_settings
from npgpt.training.trainer import Trainer

CONFIG = npgpt.GPT2Config(block_size=8, vocab_size=257, n_layer=1, n_head=2, n_embd=8)


@pytest.fixture
def tokens(tmp_path, rng):
    path = tmp_path / "tokens.bin"
    documents = [[256, *rng.integers(97, 123, 1 + i % 9)] for i in range(60)]
    write_tokens(path, np.concatenate(documents))
    write_tokenizer(path, {"name": "bytes"})
    return open_tokens(path)


def trainer(tokens, **settings):
    model = npgpt.GPT2(CONFIG, seed=1, backend="numpy")
    (path,) = tokens.paths
    sizes = {"B": 2, "T": 8, "steps": 9, "lr": 1e-2}
    s = make_settings({"train": path, "val": path, **sizes, **settings})
    return Trainer(model, s, TrainingData(s.train, s.val))


def weights_after(updates, trainer):
    for _ in range(updates):
        trainer.update()
    return trainer.model.params.flat


def test_gradients_add_up_to_a_batch_of_all_micro_batches(tokens):
    whole = weights_after(2, trainer(tokens, B=6, order="sequence"))
    parts = weights_after(2, trainer(tokens, B=2, order="sequence", total_batch=48))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)
    other = weights_after(2, trainer(tokens, B=2, order="sequence"))
    assert np.abs(other - whole).max() > 1e-3


def test_one_batch_can_be_overfitted(tokens):
    one = trainer(tokens, overfit_one_batch=True, steps=60)
    losses = [one.update().loss for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]
    many = trainer(tokens, steps=60)
    assert min(many.update().loss for _ in range(60)) > losses[-1]


def test_an_update_says_what_it_was_like(tokens):
    update = trainer(tokens, warmup=4, clip=1e-3).update()
    assert (update.step, update.lr, update.skipped) == (1, 1e-2 / 4, False)
    assert update.loss == pytest.approx(math.log(257), rel=0.02)
    assert update.norm > 0.1  # before it is clipped


def test_weight_decay_leaves_biases_and_layernorms_alone(tokens):
    for decay in ("matrices", "all"):
        one, other = (trainer(tokens, weight_decay=w, decayed_params=decay) for w in (0.0, 5.0))
        one.update(), other.update()
        for (name, a), (_, b) in zip(
            one.model.params.items(), other.model.params.items(), strict=True
        ):
            changed = not np.array_equal(a, b)
            matrix = name.endswith("w") and name not in ("ln1w", "ln2w", "lnfw")
            is_one = name in ("ln1w", "ln2w", "lnfw")  # after one update biases are near 0
            expected = matrix or name in ("wte", "wpe") or (decay == "all" and is_one)
            if expected or decay == "matrices":
                assert changed == expected, name


@pytest.mark.parametrize("setting", ["skip_loss_z", "skip_norm_z"])
def test_an_outlier_is_skipped_and_the_run_goes_on(tokens, setting):
    one = trainer(tokens, steps=200, **{setting: 4.0})
    weights_after(130, one)
    before, updates = one.model.params.flat.copy(), one.optimizer.updates
    one.model.params.lnfw *= 30  # the head's logits, and so the loss and the gradients, explode
    changed = one.model.params.flat.copy()
    update = one.update()
    assert update.skipped and one.step == 131 and one.optimizer.updates == updates
    np.testing.assert_array_equal(one.model.params.flat, changed)
    one.model.params.flat[:] = before
    assert not one.update().skipped


def test_without_the_setting_nothing_is_skipped(tokens):
    one = trainer(tokens, steps=200)
    weights_after(130, one)
    one.model.params.lnfw *= 30
    assert not one.update().skipped


def test_a_loss_that_is_no_number_stops_before_the_update(tokens):
    one = trainer(tokens)
    weights_after(3, one)
    one.model.params.wte[:] = np.nan
    place, moments = one.batches.state(), one.optimizer.m.flat.copy()
    with np.errstate(invalid="ignore"), pytest.raises(TrainingError) as caught:
        one.update()
    assert str(caught.value) == "the loss is nan in step 4: stopped before the update"
    assert one.step == 3 and one.batches.state() == place
    np.testing.assert_array_equal(one.optimizer.m.flat, moments)


def test_gradients_that_are_no_numbers_stop_before_the_update(tokens, monkeypatch):
    one = trainer(tokens)
    one.update()
    before = one.model.params.flat.copy()
    monkeypatch.setattr(one.model, "gradient_norm", lambda: math.inf)
    with pytest.raises(TrainingError, match="the gradients' norm is inf in step 2: stopped"):
        one.update()
    np.testing.assert_array_equal(one.model.params.flat, before)


def plain(state):
    """A state with the bytes of its Parameters in their place, to be compared."""
    return {
        key: value.flat.tobytes() if isinstance(value, npgpt.Parameters) else value
        for key, value in state.items()
    }


@pytest.mark.parametrize("order", ["sequence", "random", "shuffle", "documents"])
def test_a_state_goes_on_bit_for_bit(tokens, order):
    one = trainer(tokens, order=order, total_batch=32)
    weights_after(3, one)
    one.validate()
    state = copy.deepcopy(one.state())
    other = trainer(tokens, order=order, total_batch=32)
    other.model.params.flat[:] = one.model.params.flat
    other.restore(state)
    np.testing.assert_array_equal(weights_after(3, other), weights_after(3, one))
    assert other.validate() == one.validate()
    assert plain(other.state()) == plain(one.state())


def test_validation_is_the_mean_loss_of_the_tokens(tokens):
    one = trainer(tokens, val_batches=0, order="sequence")
    one.model.params.wte *= 25  # so that losses differ
    N = len(tokens) - 1
    total = 0.0
    for start in range(0, N, 8):
        row = tokens.read(start, min(9, N + 1 - start))
        total += (len(row) - 1) * one.model.loss(row[None, :-1], row[None, 1:])
    assert one.validate() == pytest.approx(total / N, rel=1e-5)
    assert one.best_val_loss == one.val_loss and one.validations_since_best == 0
    few = trainer(tokens, val_batches=2, order="sequence")
    few.model.params.wte *= 25
    x, y = tokens.read(0, 32).reshape(-1, 8), tokens.read(1, 32).reshape(-1, 8)
    assert few.validate() == pytest.approx(few.model.loss(x, y), rel=1e-5)


@pytest.mark.parametrize("B, batches", [(2, 0), (7, 0), (7, 99)])
def test_documents_are_validated_as_documents_each_once(tokens, B, batches):
    one = trainer(tokens, B=B, val_batches=batches, order="documents")
    one.model.params.wte *= 25
    total = count = 0
    for start in np.flatnonzero(tokens.read(0, len(tokens)) == 256):
        row = tokens.read(int(start), min(9, len(tokens) - int(start)))
        ends = np.flatnonzero(row[1:] == 256)
        row = row[: ends[0] + 2] if ends.size else row
        total += len(row[1:]) * one.model.loss(row[None, :-1], row[None, 1:])
        count += len(row) - 1
    assert one.validate() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("order", ["shuffle", "documents"])
@pytest.mark.parametrize("batches", [0, 3])
def test_a_validation_is_also_in_bits_per_byte_of_what_it_predicts(tokens, order, batches):
    one = trainer(tokens, order=order, val_batches=batches)
    one.model.tokenizer = get_tokenizer("bytes")
    loss, size = one.validate(), one.val_size
    assert one.bits_per_byte == pytest.approx(loss / math.log(2) * size.n_tokens / size.n_bytes)
    if order == "shuffle":
        predicted = tokens.read(1, size.n_tokens)
        assert size.n_tokens == (3 * 2 * 8 if batches else len(tokens) - 1)
        assert size.n_bytes == np.count_nonzero(predicted != 256)  # end-of-text is no text
    elif not batches:  # the documents of up to eight letters are whole, and each ends with eot
        longest = [min(8, 1 + i % 9 + (i < 59)) for i in range(60)]
        assert size.n_tokens == sum(longest)
    again = trainer(tokens, order=order, val_batches=batches)
    assert again.model.tokenizer is None and again.val_size.n_bytes == 0
    assert again.validate() == loss and again.bits_per_byte is None


def test_each_step_and_sequence_drops_out_others_and_a_validation_none(tokens):
    one = trainer(tokens, dropout=0.3, total_batch=32, overfit_one_batch=True, seed=4)
    seeds, right = [], one.model.forward_backward

    def forward_backward(x, y, **options):
        assert options["dropout"] == 0.3
        seeds.append((*options["seed"], options["before"]))
        return right(x, y, **options)

    one.model.forward_backward = forward_backward
    weights_after(3, one)
    assert seeds == [(4, step, before) for step in range(3) for before in (0, 2)]
    plain = trainer(tokens)
    plain.model.params.flat[:] = one.model.params.flat
    assert one.validate() == plain.validate()


def test_a_run_is_done_after_its_steps_or_when_it_gets_no_better(tokens):
    one = trainer(tokens, steps=3)
    weights_after(3, one)
    assert one.done
    one = trainer(tokens, steps=9, patience=2)
    for best, worse, done in ((True, 0, False), (False, 1, False), (False, 2, True)):
        if not best:
            one.best_val_loss = 0.0
        one.validate()
        assert (one.validations_since_best, one.done) == (worse, done)


def test_a_sample_takes_a_tokenizer_and_a_prompt_that_it_knows(tokens):
    with pytest.raises(ArgumentError, match="sample_every needs a tokenizer"):
        trainer(tokens, sample_every=5)
    model = npgpt.GPT2(CONFIG, backend="numpy")
    model.tokenizer = CharsTokenizer("abc")
    settings = {"B": 2, "T": 8, "sample_every": 5, "sample_prompt": "abx"}
    s = make_settings({"train": tokens.paths[0], **settings})
    with pytest.raises(ArgumentError, match="the text has 'x'"):
        Trainer(model, s, TrainingData(s.train, s.val))


def test_each_target_of_an_update_counts_alike(tokens):
    whole = weights_after(1, trainer(tokens, B=6, order="documents"))
    parts = weights_after(1, trainer(tokens, B=2, order="documents", total_batch=48))
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)


def test_validation_tokens_that_cannot_be_are_refused_before_the_run(tokens, tmp_path):
    write_tokens(tmp_path / "one.bin", [97])
    write_tokens(tmp_path / "none.bin", [97] * 50)
    model = npgpt.GPT2(CONFIG, backend="numpy")
    for name, order, words in (
        ("one", "shuffle", "--val .*one.bin: has 1 token, but predicting one needs 2"),
        ("none", "documents", "order documents needs eot"),
    ):
        val = str(tmp_path / f"{name}.bin")
        s = make_settings({"train": tokens.paths[0], "val": val, "B": 2, "T": 8, "order": order})
        with pytest.raises(ArgumentError, match=words):
            Trainer(model, s, TrainingData(s.train, s.val))

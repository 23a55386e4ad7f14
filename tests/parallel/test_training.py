"""Ranks that are threads train as one process with all of their sequences does."""

import numpy as np
import pytest
from ranks import in_ranks

import npgpt
from npgpt.data.batches import ORDERS
from npgpt.data.descriptions import tokenizer_from_description, write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.data.training_data import TrainingData
from npgpt.errors import ArgumentError
from npgpt.evaluation.loss import mean_loss
from npgpt.parallel import exchange
from npgpt.parallel.communicator import ALONE
from npgpt.training.settings import make_settings
from npgpt.training.train import for_ranks
from npgpt.training.trainer import Trainer

CONFIG = npgpt.GPT2Config(block_size=8, vocab_size=257, n_layer=2, n_head=2, n_embd=8)
STEPS = 12


@pytest.fixture
def path(tmp_path, rng):
    documents = [[256, *rng.integers(97, 123, 1 + i % 9)] for i in range(90)]
    write_tokens(tmp_path / "tokens.bin", np.concatenate(documents))
    write_tokenizer(tmp_path / "tokens.bin", {"name": "bytes"})
    return str(tmp_path / "tokens.bin")


def trainer(comm, path, **settings):
    model = npgpt.GPT2(CONFIG, seed=1, backend="numpy")
    sizes = {"B": 6, "T": 8, "steps": 200, "lr": 1e-2, "clip": 0.3, "warmup": 4, "val_batches": 0}
    s = make_settings({"train": path, "val": path, **sizes, **settings})
    return Trainer(model, for_ranks(s, comm.size), TrainingData(s.train, s.val), comm)


def trained(comm, path, steps=STEPS, **settings):
    """The losses and norms of updates, the validation loss, and the weights after them."""
    one = trainer(comm, path, **settings)
    updates = [one.update() for _ in range(steps)]
    losses = [(update.loss, update.norm) for update in updates]
    return np.array(losses), one.validate(), one.model.params.flat, one


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shard_optimizer", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_ranks_train_as_one_with_all_their_sequences(path, order, shard_optimizer, size):
    settings = {"order": order, "total_batch": 12 * 8}
    expected, val_loss, weights, _ = trained(ALONE, path, **settings)
    own = {**settings, "B": 6 // size, "shard_optimizer": shard_optimizer}
    ranks = in_ranks(size, lambda comm: trained(comm, path, **own))
    for losses, found, flat, one in ranks:
        assert one.grad_accum_steps == 2
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
        assert found == pytest.approx(val_loss, abs=1e-5)
        np.testing.assert_allclose(flat, weights, rtol=0, atol=2e-4)
        np.testing.assert_array_equal(flat, ranks[0][2])
        np.testing.assert_array_equal(losses, ranks[0][0])


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("total_batch", [6 * 8, 12 * 8])
def test_ranks_drop_out_what_one_process_does(path, size, total_batch):
    settings = {"dropout": 0.3, "total_batch": total_batch}
    expected, *_ = trained(ALONE, path, **settings)
    in_more_parts, *_ = trained(ALONE, path, **{**settings, "B": 2})
    np.testing.assert_allclose(in_more_parts, expected, rtol=0, atol=1e-5)
    for losses, *_ in in_ranks(size, lambda comm: trained(comm, path, B=6 // size, **settings)):
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    without, *_ = trained(ALONE, path, total_batch=total_batch)
    assert np.abs(without - expected).max() > 1e-2


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_with_muon_as_one_process_does(path, size):
    settings = {"optimizer": "muon", "weight_decay": 0.1, "shard_optimizer": False}
    expected, val_loss, weights, _ = trained(ALONE, path, **settings)
    ranks = in_ranks(size, lambda comm: trained(comm, path, B=6 // size, **settings))
    for losses, found, flat, _ in ranks:
        np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
        assert found == pytest.approx(val_loss, abs=1e-5)
        np.testing.assert_allclose(flat, weights, rtol=0, atol=2e-4)
        np.testing.assert_array_equal(flat, ranks[0][2])
    adamw, *_ = trained(ALONE, path)
    assert np.abs(adamw - expected).max() > 1e-2


def test_muon_is_refused_in_shards(path):
    s = make_settings({"optimizer": "muon"})
    assert not s.in_shards(1) and make_settings({}).in_shards(2)
    with pytest.raises(ArgumentError, match="muon updates whole matrices.*--no-shard-optimizer"):
        in_ranks(2, lambda comm: trainer(comm, path, B=3, optimizer="muon"))


@pytest.mark.parametrize("order", ["shuffle", "documents"])
def test_bits_per_byte_are_those_of_one_process(path, order):
    def bits(comm):
        one = trainer(comm, path, B=6 // comm.size, order=order)
        one.model.tokenizer = tokenizer_from_description({"name": "bytes"})
        one.validate()
        return one.bits_per_byte, one.val_size

    alone, size = bits(ALONE)
    assert size.n_bytes > 0
    for found, same in in_ranks(2, bits):
        assert found == pytest.approx(alone, abs=1e-5) and same == size


def test_a_gradient_that_is_left_out_is_noticed(path, monkeypatch):
    right = exchange.add_in_order

    def leave_out(terms, out):
        right([terms[0], np.zeros_like(terms[1])], out)

    expected, *_ = trained(ALONE, path)
    monkeypatch.setattr(exchange, "add_in_order", leave_out)
    losses, *_ = in_ranks(2, lambda comm: trained(comm, path, B=3))[0]
    assert np.abs(losses[:, 0] - expected[:, 0]).max() > 1e-3


@pytest.mark.parametrize("shard_optimizer", [True, False])
def test_it_is_the_same_bits_again(path, shard_optimizer):
    settings = {"B": 2, "shard_optimizer": shard_optimizer}
    first, again = (in_ranks(3, lambda comm: trained(comm, path, **settings))[1] for _ in range(2))
    np.testing.assert_array_equal(first[2], again[2])
    np.testing.assert_array_equal(first[0], again[0])


def test_an_outlier_is_skipped_by_all_ranks(path):
    def train(comm):
        one = trainer(comm, path, B=1, T=4, skip_norm_z=4.0)
        for _ in range(130):
            one.update()
        one.model.params.lnfw *= 30
        before = one.model.params.flat.copy()
        update = one.update()
        return update.skipped, np.array_equal(one.model.params.flat, before), one.optimizer.updates

    alone = train(ALONE)
    assert alone[:2] == (True, True)
    assert in_ranks(2, train) == [alone] * 2


@pytest.mark.parametrize("shard_optimizer", [True, False])
def test_bf16_on_the_wire_changes_little_and_all_ranks_alike(path, shard_optimizer):
    expected, *_ = trained(ALONE, path)
    settings = {"B": 3, "wire": "bf16", "shard_optimizer": shard_optimizer}
    ranks = in_ranks(2, lambda comm: trained(comm, path, **settings))
    difference = np.abs(ranks[0][0][:, 0] - expected[:, 0]).max()
    assert 1e-7 < difference < 1e-2
    np.testing.assert_array_equal(ranks[0][2], ranks[1][2])


def test_in_shards_a_rank_has_its_part_of_the_moments(path):
    n_params = npgpt.Parameters(CONFIG).flat.size
    for size in (2, 3):
        ranks = in_ranks(size, lambda comm: trained(comm, path, B=1, steps=1)[3].optimizer)
        sizes = [optimizer.m.size for optimizer in ranks]
        assert sum(sizes) == n_params and max(sizes) < n_params / size + 200
        whole = in_ranks(
            size, lambda comm: trained(comm, path, B=1, steps=1, shard_optimizer=False)[3].optimizer
        )
        assert [optimizer.m.flat.size for optimizer in whole] == [n_params] * size


def test_what_is_sent_is_what_the_layout_says(path):
    """A rank of N sends (N - 1) / N of the gradients and as much of the parameters."""
    n_params = npgpt.Parameters(CONFIG).flat.size

    def sent(comm):
        one = trainer(comm, path, B=1)
        before = comm.transport.n_bytes
        one.update()
        return comm.transport.n_bytes - before

    for bytes_sent in in_ranks(3, sent):
        assert bytes_sent == pytest.approx(2 * 4 * n_params * 2 / 3, rel=0.01)


def test_a_number_of_ranks_that_cannot_do_alike_much_is_refused(path):
    with pytest.raises(ArgumentError, match="4 ranks cannot share the 6 sequences of an update"):
        make_settings({"total_batch": 6 * 8, "B": 6, "T": 8}).share(4)
    s = make_settings({"total_batch": 24 * 8, "B": 6, "T": 8})
    assert [s.share(n) for n in (1, 2, 3, 4, 6, 24)] == [
        (6, 4), (6, 2), (4, 2), (6, 1), (4, 1), (1, 1),
    ]  # fmt: skip


def test_a_loss_is_shared_and_the_same_bits(path):
    tokens = open_tokens(path)
    model = npgpt.GPT2(CONFIG, seed=1, backend="numpy")
    alone = mean_loss(model, tokens, 2, 8)
    assert in_ranks(3, lambda comm: mean_loss(model, tokens, 2, 8, comm=comm)) == [alone] * 3
    few = mean_loss(model, tokens, 2, 8, 2)
    assert in_ranks(3, lambda comm: mean_loss(model, tokens, 2, 8, 2, comm)) == [few] * 3 != alone

"""Runs of several ranks, which are threads: what rank 0 writes, and how they go on."""

import json

import numpy as np
import pytest
from ranks import in_ranks
from runs import SIZES, content

from npgpt import GPT2Config, Parameters
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.errors import ArgumentError, FileError, TrainingError
from npgpt.formats.run_checkpoint import checkpoint_folder, checkpoint_steps, load_checkpoint
from npgpt.parallel.communicator import ALONE, PeerError
from npgpt.training.run import Run
from npgpt.training.train import train_as_rank
from npgpt.training.trainer import Trainer

SETTINGS = {
    **SIZES, "schedule": "constant", "val_every": 4, "checkpoint_every": 5, "lr": 1e-2,
    "sample_every": 4, "sample_tokens": 5, "skip_norm_z": 3.0, "threads": 1,
}  # fmt: skip


@pytest.fixture
def tokens(tmp_path, rng):
    for name in ("train", "val"):
        path = tmp_path / f"{name}.bin"
        letters = rng.integers(97, 123, 500)
        letters[::10] = 256
        write_tokens(path, letters)
        write_tokenizer(path, {"name": "bytes"})
    return {name: str(tmp_path / f"{name}.bin") for name in ("train", "val")}


def train(size, resume=None, **settings):
    """Train with so many ranks -> the Trained of each."""
    if size == 1:
        return [train_as_rank(ALONE, resume, True, settings)]
    return in_ranks(size, lambda comm: train_as_rank(comm, resume, True, settings))


def losses(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return np.array([line["loss"] if "loss" in line else line["val_loss"] for line in lines])


@pytest.mark.parametrize("shard_optimizer", [True, False])
def test_a_run_goes_on_bit_for_bit_on_as_many_ranks(tmp_path, tokens, shard_optimizer):
    settings = {**SETTINGS, **tokens, "shard_optimizer": shard_optimizer}
    (whole, *_) = train(2, **settings, run=str(tmp_path / "whole"), steps=12)
    (half, *_) = train(2, **settings, run=str(tmp_path / "half"), steps=8)
    train(2, resume=str(half.folder), steps=12)
    assert content(half.folder) == content(whole.folder)
    assert len(list(half.folder.glob("samples/*"))) == 4


@pytest.mark.parametrize("order", ["sequence", "documents"])
def test_a_run_goes_on_with_any_number_of_ranks(tmp_path, tokens, order):
    """From 2 ranks to 1, to 4, to 2 without shards, against one rank with all sequences."""
    settings = {**SETTINGS, **tokens, "order": order}
    (whole,) = train(1, **{**settings, "B": 4}, run=str(tmp_path / "whole"), steps=16)
    folder = str(tmp_path / "run")
    train(2, **settings, run=folder, steps=4)
    train(1, resume=folder, steps=8)
    train(4, resume=folder, steps=12)
    (last, *_) = train(2, resume=folder, steps=16, shard_optimizer=False)
    np.testing.assert_allclose(losses(last.folder), losses(whole.folder), rtol=0, atol=1e-5)
    states = [
        load_checkpoint(checkpoint_folder(one.folder, 16), ("m", "v"))[1] for one in (last, whole)
    ]
    assert states[0]["batches"] == states[1]["batches"]
    for name, tolerance in (("m", 1e-4), ("v", 1e-4)):
        a, b = (state[name].flat for state in states)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def test_all_ranks_return_what_was_trained(tmp_path, tokens):
    ranks = train(3, **SETTINGS, **tokens, run=str(tmp_path / "run"), steps=5)
    assert {(one.step, one.loss, one.best_val_loss, one.signal) for one in ranks} == {
        (5, ranks[0].loss, ranks[0].best_val_loss, 0)
    }
    for one in ranks[1:]:
        np.testing.assert_array_equal(one.model.params.flat, ranks[0].model.params.flat)


def test_only_rank_0_reads_the_model(tmp_path, tokens, monkeypatch):
    params, readers = Parameters.init(GPT2Config(8, 257, 1, 2, 8)), []

    def load(where):
        readers.append(where)
        return params, {"name": "bytes"}

    monkeypatch.setattr("npgpt.training.start.load_model", load)
    sizes = dict.fromkeys(("n_layer", "n_head", "n_embd"), 0)
    settings = {**SETTINGS, **sizes, **tokens, "sample_every": 0, "lr": 1e-30, "model": "m.bin"}
    ranks = train(2, **settings, run=str(tmp_path / "run"), steps=1)
    assert readers == ["m.bin"]
    for one in ranks:
        np.testing.assert_array_equal(one.model.params.flat, params.flat)


def test_a_run_that_is_there_is_told_by_rank_0(tmp_path, tokens):
    settings = {**SETTINGS, **tokens, "run": str(tmp_path / "run"), "steps": 2}
    train(2, **settings)
    before = content(tmp_path / "run")
    with pytest.raises(ArgumentError, match="there is a run in this folder: continue it by"):
        train(2, **settings)
    assert content(tmp_path / "run") == before


def test_a_checkpoint_that_cannot_be_written_ends_all_ranks(tmp_path, tokens, monkeypatch):
    right = Run.save

    def full(run, trainer):
        trainer.comm.broadcast_json(False)
        raise FileError("run: cannot be written: no space left on device")

    monkeypatch.setattr(Run, "save", lambda r, t: (full if t.step == 10 else right)(r, t))
    with pytest.raises((FileError, PeerError), match="no space left on device"):
        train(2, **SETTINGS, **tokens, run=str(tmp_path / "run"), steps=20)
    state = load_checkpoint(checkpoint_folder(tmp_path / "run", 5), ("m", "v"))[1]
    assert state["step"] == 5 and not list((tmp_path / "run").glob("checkpoints/*.partial"))


def test_ranks_that_have_other_tokens_are_refused(tmp_path, tokens):
    other = tmp_path / "other.bin"
    write_tokens(other, np.full(500, 97))
    settings = {**SETTINGS, **tokens, "run": str(tmp_path / "run"), "steps": 2}

    def train_on_own(comm):
        own = {"train": str(other)} if comm.rank == 1 else {}
        return train_as_rank(comm, None, True, {**settings, **own})

    with pytest.raises(
        ArgumentError, match="--train .*: has other tokens at rank 1 than at rank 0"
    ):
        in_ranks(2, train_on_own)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_at_one_rank_stops_all_and_saves(tmp_path, tokens, monkeypatch):
    right = Trainer._forward_backward

    def diverges(trainer):
        loss = right(trainer)
        return float("nan") if trainer.comm.rank == 1 and trainer.step == 8 else loss

    monkeypatch.setattr(Trainer, "_forward_backward", diverges)
    with pytest.raises(TrainingError, match="the loss is nan in step 9: stopped before"):
        train(2, **{**SETTINGS, "val_every": 0}, **tokens, run=str(tmp_path / "run"), steps=20)
    assert checkpoint_steps(tmp_path / "run") == [5]  # the weights of after 8 gave no number

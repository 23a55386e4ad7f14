"""Whole runs from Python: what they leave, how they go on, what they refuse."""

import itertools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from runs import SETTINGS, SIZES, content

import npgpt
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.errors import ArgumentError, FileError, NpgptError, TrainingError
from npgpt.formats.run_checkpoint import checkpoint_steps
from npgpt.training import curves, loop
from npgpt.training.train import train
from npgpt.training.trainer import Trainer
from npgpt.wording import command


def test_a_run_leaves_all_of_it_in_its_folder(tmp_path, tokens):
    trained = train(
        run=str(tmp_path / "run"), **tokens, **SIZES, steps=12, val_every=6, sample_every=6,
        sample_tokens=5, sample_prompt="abc", checkpoint_every=5, warmup=3, lr=1e-2,
    )  # fmt: skip
    assert (trained.step, trained.signal, trained.folder) == (12, 0, tmp_path / "run")
    assert checkpoint_steps(trained.folder)[-2:] == [10, 12]
    assert trained.best_val_loss < np.log(257) - 0.1
    lines = content(trained.folder)["log.jsonl"]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "val_loss" in line] == [0, 6, 12]
    for line in lines:
        assert ("bits_per_byte" in line) == ("val_loss" in line)
    assert trained.loss == lines[-2]["loss"]
    samples = trained.folder / "samples"
    assert sorted(os.listdir(samples)) == [f"step_{n:08d}.txt" for n in (0, 6, 12)]
    assert (samples / "step_00000006.txt").read_bytes().startswith(b"abc")
    model = npgpt.GPT2.from_pretrained(trained.folder)
    np.testing.assert_array_equal(model.params.flat, trained.model.params.flat)
    assert model.tokenizer.description == {"name": "bytes"}


def test_without_validation_tokens_nothing_is_validated(tmp_path, tokens):
    trained = train(run=str(tmp_path / "run"), train=tokens["train"], **SIZES, steps=2)
    assert trained.best_val_loss is None
    assert b"tel" not in content(trained.folder)["main.log"]


def test_what_no_tokenizer_explains_has_no_bits_per_byte_and_says_so_once(tmp_path, tokens, capsys):
    said = "no bits per byte: no tokenizer says what text the tokens are"
    trained = train(run=str(tmp_path / "known"), **tokens, **SIZES, steps=2, val_every=1)
    out = capsys.readouterr().out
    assert said not in out and out.count(" bits per byte\n") == 3
    for path in tokens.values():
        Path(path).with_suffix(".tokenizer.json").unlink()
    trained = train(
        run=str(tmp_path / "run"), **tokens, **SIZES, vocab_size=257, steps=2, val_every=1
    )
    out = capsys.readouterr().out
    assert out.count(said) == 1 and out.count("bits per byte") == 1
    assert "bits_per_byte" not in (trained.folder / "log.jsonl").read_text()


def test_a_run_starts_from_a_model_file(tmp_path, tokens, params):
    start = tmp_path / "start.bin"
    npgpt.write_checkpoint(start, params)
    write_tokens(tmp_path / "few.bin", np.arange(250))
    settings = {"train": str(tmp_path / "few.bin"), "model": str(start), "B": 2, "T": 8}
    trained = train(run=str(tmp_path / "run"), **settings, steps=1, lr=1e-30)
    np.testing.assert_allclose(trained.model.params.flat, params.flat, atol=1e-20)
    with pytest.raises(ArgumentError, match="n_layer applies only to a model from scratch, not to"):
        train(run=str(tmp_path / "other"), **settings, n_layer=3)
    with pytest.raises(
        FileError, match="few.bin: token 249 is outside the model's vocabulary of 100"
    ):
        small = {**SIZES, "vocab_size": 100}
        train(run=str(tmp_path / "other"), train=settings["train"], **small)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"order": "sequence"},
        {"order": "random"},
        {"order": "shuffle"},
        {"order": "documents"},
        {"overfit_one_batch": True, "skip_norm_z": 0.0},
        {"optimizer": "muon"},
        {"dropout": 0.3},
    ],
    ids=str,
)
def test_a_run_goes_on_bit_for_bit(tmp_path, tokens, changes, monkeypatch):
    monkeypatch.setattr("npgpt.training.outliers.WINDOW", 5)
    settings = {**SETTINGS, **tokens, "skip_norm_z": 1.2, **changes}
    whole = train(run=str(tmp_path / "whole"), **settings)
    update = Trainer.update

    def dies(trainer):
        if trainer.step == 13:
            raise RuntimeError("power cut")
        return update(trainer)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Trainer, "update", dies)
        train(run=str(tmp_path / "parts"), **settings)
    parts = train(resume=tmp_path / "parts")
    assert content(parts.folder) == content(whole.folder)
    assert parts.loss == whole.loss
    skipped = [line["skipped"] for line in content(whole.folder)["log.jsonl"] if "loss" in line]
    assert any(skipped) == (settings["skip_norm_z"] > 0)
    lost = train(run=str(tmp_path / "lost"), **{**settings, "seed": 1})
    assert content(lost.folder) != content(whole.folder)  # what is compared can differ


def test_a_run_that_had_no_checkpoint_yet_begins_again(tmp_path, tokens, monkeypatch):
    whole = train(run=str(tmp_path / "whole"), **tokens, **SETTINGS)
    monkeypatch.setattr(Trainer, "update", lambda trainer: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(run=str(tmp_path / "parts"), **tokens, **SETTINGS)
    monkeypatch.undo()
    assert content(train(resume=tmp_path / "parts").folder) == content(whole.folder)


def test_a_run_can_be_made_longer(tmp_path, tokens):
    train(run=str(tmp_path / "run"), **tokens, **{**SETTINGS, "schedule": "constant", "steps": 10})
    longer = train(resume=tmp_path / "run", steps=20)
    whole = train(run=str(tmp_path / "whole"), **tokens, **{**SETTINGS, "schedule": "constant"})
    np.testing.assert_array_equal(longer.model.params.flat, whole.model.params.flat)
    with pytest.raises(ArgumentError, match="--resume .*run: --seed cannot change once a run has"):
        train(resume=tmp_path / "run", seed=1)


def test_a_run_is_resumed_from_elsewhere_with_its_data_moved(tmp_path, tokens, monkeypatch):
    whole = train(run=str(tmp_path / "whole"), **tokens, **SETTINGS)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = {**SETTINGS, "train": "train.bin", "val": "val.bin", "steps": 10}
    train(run="run", **settings)
    monkeypatch.chdir(tmp_path / "away")
    assert train(resume="../run", steps=15).step == 15
    for name in ("train", "val"):
        (tmp_path / f"{name}.bin").rename(tmp_path / "away" / f"{name}.bin")
        (tmp_path / f"{name}.tokenizer.json").rename(tmp_path / "away" / f"{name}.tokenizer.json")
    with pytest.raises(FileError, match="train.bin: No such file"):
        train(resume="../run", steps=20)
    moved = train(resume="../run", steps=20, train="train.bin", val="val.bin")
    assert moved.step == whole.step == 20


def test_a_run_that_patience_has_ended_goes_on_with_more_of_it(tmp_path, tokens):
    settings = {**SETTINGS, "val_every": 1, "patience": 1, "lr": 0.5, "steps": 40}
    ended = train(run=str(tmp_path / "run"), **tokens, **settings)
    assert ended.early and ended.step < 40
    assert train(resume=ended.folder).step == ended.step
    assert train(resume=ended.folder, patience=0, lr=1e-3).step == 40


def test_a_learning_rate_that_rises_again_is_told(tmp_path, tokens, capsys):
    settings = {**SETTINGS, "schedule": "wsd", "lr": 0.01}
    train(run=str(tmp_path / "run"), **tokens, **settings)
    capsys.readouterr()
    train(resume=tmp_path / "run", steps=40)
    note = "note: with 40 steps in all, the learning rate goes on at 1.00e-02; it was 1.3"
    assert note in capsys.readouterr().out


def test_other_tokens_than_the_run_began_with_are_refused(tmp_path, tokens):
    train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    write_tokens(tokens["train"], np.full(300, 97))
    with pytest.raises(
        ArgumentError, match="has 300 tokens, but had 400 when the run stopped; a run"
    ):
        train(resume=tmp_path / "run", steps=30)


def test_a_validation_loss_that_is_no_number_is_never_the_best(tmp_path, tokens, monkeypatch):
    losses = iter([3.0, 3.0, float("nan")])  # after the steps 0, 7 and 14
    monkeypatch.setattr("npgpt.training.trainer.mean_loss", lambda *args: next(losses))
    with pytest.raises(TrainingError, match="validation loss is nan after step 14; the last good"):
        train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    assert checkpoint_steps(tmp_path / "run")[-1] == 10


def test_a_run_keeps_the_tokenizer_of_its_model(tmp_path, tokens):
    write_tokens(tmp_path / "plain.bin", np.full(400, 98))
    begun = train(run=str(tmp_path / "begun"), **tokens, **SETTINGS)
    settings = {"model": str(begun.folder), "B": 2, "T": 8, "sample_every": 2, "steps": 4}
    run = train(run=str(tmp_path / "run"), train=str(tmp_path / "plain.bin"), **settings)
    assert run.model.tokenizer.name == "bytes"
    longer = train(resume=run.folder, steps=6)
    assert longer.model.tokenizer.name == "bytes"
    assert (run.folder / "samples" / "step_00000006.txt").exists()
    write_tokenizer(tmp_path / "plain.bin", {"name": "chars", "characters": "abc"})
    with pytest.raises(ArgumentError, match="plain.bin: the tokenizer is chars, but .* has bytes"):
        train(resume=run.folder, steps=8)


def test_samples_show_tokens_beyond_the_tokenizer(tmp_path, tokens):
    settings = {**SETTINGS, "vocab_size": 5000, "sample_every": 20, "sample_tokens": 9}
    trained = train(run=str(tmp_path / "run"), **tokens, **settings)
    text = (trained.folder / "samples" / "step_00000000.txt").read_text("utf-8")
    assert "\ufffd" in text


def test_patience_ends_a_run(tmp_path, tokens, monkeypatch):
    losses = itertools.count(1.0)
    monkeypatch.setattr("npgpt.training.trainer.mean_loss", lambda *args: next(losses))
    trained = train(run=str(tmp_path / "run"), **tokens, **{**SETTINGS, "patience": 2})
    assert (trained.step, trained.early, trained.best_val_loss) == (14, True, 1.0)


def test_fewer_steps_than_are_done_are_refused_and_change_nothing(tmp_path, tokens):
    train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    before = (tmp_path / "run" / "settings.toml").read_bytes()
    with pytest.raises(ArgumentError, match="--steps must be at least the 20 that the run has"):
        train(resume=tmp_path / "run", steps=5)
    assert (tmp_path / "run" / "settings.toml").read_bytes() == before


def test_other_data_of_the_same_length_is_refused(tmp_path, tokens):
    train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    write_tokens(tokens["train"], [98] * 400)
    with pytest.raises(ArgumentError) as caught:
        train(resume=tmp_path / "run", steps=30)
    where = command("train", "--resume", tmp_path / "run", "--train", "FILE", "--val", "FILE")
    assert str(caught.value) == (
        f"--train {tokens['train']}: has as many tokens as when the run stopped, but others;"
        f" a run goes on with the data that it began with: say where that is now by {where}, or"
        f" start a new run on other data (--model {tmp_path / 'run'} starts it from the weights of"
        " this one)"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda train, val: train.unlink(), "--train {train}: No such file or directory; a run"),
        (lambda train, val: val.unlink(), "--val {val}: No such file or directory; a run"),
        (lambda train, val: val.write_text("no tokens"), "--val {val}: not a token file but text"),
        (
            lambda train, val: write_tokenizer(train, {"name": "chars", "characters": "ab"}),
            "--val {val}: the tokenizer is bytes, but {train} has chars; a run goes on",
        ),
        (
            lambda train, val: write_tokens(train, [300] * 400),
            "{train}: token 300 is outside the model's vocabulary of 257; a run goes on",
        ),
        (
            lambda train, val: write_tokens(train, [97]),
            "--train {train}: has 1 token, but had 400 when the run stopped; a run goes on",
        ),
    ],
)
def test_data_that_was_moved_or_changed_is_one_sentence_with_what_to_do(
    change, words, tmp_path, tokens
):
    train(run=str(tmp_path / "run"), **tokens, **{**SETTINGS, "steps": 2})
    change(*map(Path, tokens.values()))
    with pytest.raises(NpgptError) as caught:
        train(resume=tmp_path / "run", steps=3)
    said = str(caught.value)
    assert words.format(**tokens) in said and "\n" not in said
    assert f"--resume {tmp_path / 'run'} --train FILE --val FILE, or start a new run on" in said


def test_a_sample_is_printed_once_though_the_run_is_resumed(tmp_path, tokens, capsys):
    settings = {**SETTINGS, "steps": 10, "sample_every": 5, "sample_tokens": 3}
    train(run=str(tmp_path / "run"), **tokens, **settings)
    assert capsys.readouterr().out.count("sample at step 10:") == 1
    train(resume=tmp_path / "run", steps=15)
    out = capsys.readouterr().out
    assert "sample at step 10:" not in out and out.count("sample at step 15:") == 1
    (tmp_path / "run" / "samples" / "step_00000015.txt").unlink()  # killed before it was written
    train(resume=tmp_path / "run")
    assert capsys.readouterr().out.count("sample at step 15:") == 1


OF_AN_OLD_RUN = {  # how settings.toml said it in 0.1.0, and what it left unsaid
    "final_lr_fraction = 0.1\n": "final_lr = 0.1\n", 'decayed_params = "all"\n': 'decay = "all"\n',
    "min_lr = 0.0\n": "", 'optimizer = "adamw"\n': "", "muon_lr = 0.02\n": "",
    "muon_momentum = 0.95\n": "", "dropout = 0.0\n": "",
}  # fmt: skip


def test_a_run_with_settings_of_an_earlier_version_goes_on_bit_for_bit(
    tmp_path, tokens, monkeypatch
):
    settings = {**SETTINGS, **tokens, "final_lr_fraction": 0.1, "decayed_params": "all"}
    whole = train(run=str(tmp_path / "whole"), **settings)
    update = Trainer.update

    def dies(trainer):
        if trainer.step == 13:
            raise RuntimeError("power cut")
        return update(trainer)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Trainer, "update", dies)
        train(run=str(tmp_path / "old"), **settings)
    path = tmp_path / "old" / "settings.toml"
    text = path.read_text()
    for new, old in OF_AN_OLD_RUN.items():
        assert text.count(new) == 1
        text = text.replace(new, old)
    path.write_text(text)
    assert content(train(resume=tmp_path / "old").folder) == content(whole.folder)
    assert {*OF_AN_OLD_RUN} <= {*path.read_text().splitlines(keepends=True)}  # in today's words
    for name, other in (
        ("final", {"final_lr_fraction": 0.5}),
        ("decay", {"decayed_params": "matrices"}),
    ):
        lost = train(run=str(tmp_path / name), **{**settings, **other})
        assert content(lost.folder) != content(whole.folder)  # and both of them count


def test_a_key_that_no_version_had_is_refused_in_a_run_too(tmp_path, tokens):
    train(run=str(tmp_path / "run"), **tokens, **{**SETTINGS, "steps": 1})
    path = tmp_path / "run" / "settings.toml"
    text = path.read_text()
    path.write_text(text + "final = 0.1\n")
    with pytest.raises(ArgumentError, match=r"settings.toml: there is no setting final; "):
        train(resume=tmp_path / "run", steps=2)


def test_quiet_prints_nothing_and_trains_the_same(tmp_path, tokens, capfd):
    loud = train(run=str(tmp_path / "loud"), **tokens, **SETTINGS)
    assert "memory of a step" in capfd.readouterr().out
    quiet = train(run=str(tmp_path / "quiet"), quiet=True, **tokens, **SETTINGS)
    assert capfd.readouterr().out == ""
    np.testing.assert_array_equal(quiet.model.params.flat, loud.model.params.flat)
    train(resume=tmp_path / "quiet", quiet=True, steps=22)
    assert capfd.readouterr().out == ""


def test_it_opens_with_the_settings_that_differ(tmp_path, tokens, capfd):
    train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    shown = capfd.readouterr().out
    for line in ("n_embd = 8", "steps = 20", "lr = 0.01"):
        assert f"\n{line}\n" in shown
    assert "beta2 =" not in shown and "wsd_decay" not in shown
    assert f"the other settings: {tmp_path / 'run' / 'settings.toml'}\n" in shown


def test_git_ignores_a_run(tmp_path, tokens):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    command = ["git", "-C", tmp_path, "status", "--porcelain", "run"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b""


def test_the_losses_are_drawn_at_the_end_and_before_that_once_in_a_while(
    tmp_path, tokens, picture, monkeypatch
):
    drawn = []
    monkeypatch.setattr(curves, "draw_run", lambda folder: drawn.append(last_step(folder)))
    train(run=str(tmp_path / "short"), **tokens, **SETTINGS)
    assert drawn == [20]
    monkeypatch.setattr(loop, "REDRAW", 0.0)
    train(run=str(tmp_path / "slow"), **tokens, **SETTINGS)
    assert drawn == [20, 5, 7, 10, 14, 15, 20, 20]


def last_step(run):
    return json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]

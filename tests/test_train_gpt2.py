"""The program `npgpt train`: its options, its settings files, its sentences, its exit statuses."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import npgpt
from npgpt import train_gpt2
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.errors import TrainingError
from npgpt.formats.run_checkpoint import checkpoint_steps
from npgpt.train_gpt2 import main, parse
from npgpt.training.run import Run
from npgpt.training.settings import FIELDS, Settings, make_settings, read_toml
from npgpt.training.train import Trained, train
from npgpt.wording import command


@pytest.fixture
def tokens(tmp_path, rng):
    path = tmp_path / "train.bin"
    write_tokens(path, rng.integers(97, 123, 400))
    write_tokenizer(path, {"name": "bytes"})
    return path


# each option with another value than its default
OTHERS = {
    "run": "other", "train": "a.bin", "val": "b.bin", "order": "random", "seed": 3,
    "model": "d12", "n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 64, "vocab_size": 300,
    "B": 2, "T": 8, "total_batch": 32, "steps": 7, "overfit_one_batch": True,
    "lr": 0.01, "warmup": 5, "schedule": "linear", "final_lr_fraction": 0.1, "wsd_decay": 0.5,
    "beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.0, "decayed_params": "all",
    "optimizer": "muon", "muon_lr": 0.05, "muon_momentum": 0.9, "dropout": 0.2, "clip": 0.0,
    "skip_loss_z": 5.0, "skip_norm_z": 6.0, "val_every": 9, "val_batches": 3,
    "patience": 4, "sample_every": 2, "sample_tokens": 5, "sample_prompt": "ab",
    "log_every": 5, "checkpoint_every": 4, "keep": 3,
    "precision": "bf16", "recompute": True, "recompute_blocks": True, "threads": 1,
    "tensorboard": True, "wire": "bf16", "shard_optimizer": False,
}  # fmt: skip
APART = {"min_lr": 0.003}  # which does not go with final_lr_fraction


def as_options(values):
    words = []
    for name, value in values.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", str(value)]
    return words


def test_options_have_hyphens_too_and_switches_can_be_switched_off():
    words = ["--val-every", "3", "--no-recompute", "--overfit-one-batch"]
    values = {"val_every": 3, "recompute": False, "overfit_one_batch": True}
    assert parse(words, "npgpt train") == values


def test_each_option_becomes_its_setting(capsys):
    assert {**OTHERS, **APART}.keys() == FIELDS.keys()
    apart = {**OTHERS, **APART}
    del apart["final_lr_fraction"]
    for values in (OTHERS, apart):
        assert make_settings(parse(as_options(values), "npgpt train")) == Settings(**values)
    assert not any(value == FIELDS[name].default for name, value in OTHERS.items())
    assert APART["min_lr"] != FIELDS["min_lr"].default
    with pytest.raises(SystemExit):
        parse(["--help"], "npgpt train")
    shown = capsys.readouterr().out
    shown = set(re.findall(r"--[\w-]+", shown))
    names = [*FIELDS, "config", "resume"]
    assert {f"--{name.replace('_', '-')}" for name in names} <= shown
    assert not any("_" in option for option in shown)


# what changes the numbers of a run of four steps; the others are seen in their own tests
CHANGING = [
    "order", "seed", "n_layer", "n_head", "n_embd", "block_size", "vocab_size", "B", "T",
    "total_batch", "overfit_one_batch", "lr", "warmup", "schedule", "final_lr_fraction", "min_lr",
    "beta1", "beta2", "eps", "weight_decay", "decayed_params", "clip",
]  # fmt: skip
SMALL = {
    "n_layer": 2, "n_head": 1, "n_embd": 4, "B": 1, "T": 16, "steps": 4, "threads": 1, "lr": 0.02,
    "weight_decay": 0.3,
}  # fmt: skip


def test_each_option_of_the_training_changes_the_run(tmp_path, tokens):
    def losses(name=None):
        values = {**SMALL, "run": str(tmp_path / f"run_{name}"), "train": str(tokens)}
        if name:
            values[name] = {**OTHERS, **APART}[name]
        model = train(**values).model
        return [*model.params.flat[:50], model.params.flat.size, model.params.ln1w.sum()]

    usual = losses()
    for name in CHANGING:
        assert losses(name) != usual, name


def test_the_wsd_part_changes_the_run(tmp_path, tokens):
    ends = []
    for part in (0.5, 1.0):
        run = str(tmp_path / str(part))
        values = {**SMALL, "schedule": "wsd", "wsd_decay": part, "run": run, "train": str(tokens)}
        ends.append(train(**values).model.params.flat.copy())
    assert not np.array_equal(*ends)


def test_recompute_and_threads_change_no_bit(tmp_path, tokens, monkeypatch):
    monkeypatch.setattr("npgpt.core.threads.FLOPS_PER_THREAD", 1.0)
    threads = npgpt.get_threads()
    ends = []
    try:
        for i, (values, recompute) in enumerate(
            (
                ({"threads": 1}, False),
                ({"threads": 2}, False),
                ({"recompute": True}, True),
                ({"recompute": True, "recompute_blocks": True}, "blocks"),
            )
        ):
            values = {**SMALL, **values, "run": str(tmp_path / str(i)), "train": str(tokens)}
            trained = train(**values)
            ends.append(trained.model.params.flat.copy())
            assert trained.model.recompute == recompute
            assert npgpt.get_threads() == min(values["threads"], os.cpu_count())
    finally:
        npgpt.set_threads(threads)
    for end in ends[1:]:
        np.testing.assert_array_equal(ends[0], end)


@pytest.mark.slow
@pytest.mark.usefixtures("bf16_hardware")
def test_a_run_goes_on_in_its_precision(tmp_path, tokens):
    values = {**SMALL, "n_embd": 64, "schedule": "constant", "train": str(tokens)}

    def flat(name, **others):
        return train(run=str(tmp_path / name), **{**values, **others}).model.params.flat

    whole = flat("whole", precision="bf16")
    flat("half", precision="bf16", steps=2)
    half = train(resume=str(tmp_path / "half"), steps=4).model
    assert half.precision == "bf16"
    np.testing.assert_array_equal(half.params.flat, whole)
    assert 0 < np.abs(flat("exact") - whole).max() < 0.1


def test_a_settings_file_and_options_that_win(tmp_path, tokens, capsys):
    config = tmp_path / "small.toml"
    config.write_text(
        "n_layer = 1\nn_head = 2\nn_embd = 8\nB = 2\nT = 8\nsteps = 9\nlr = 1e-2\nkeep = 3\n"
        f"run = '{tmp_path / 'run'}'\ntrain = '{tokens}'\n"
    )
    assert main(["--config", str(config), "--steps", "6", "--checkpoint_every", "1"]) == 0
    out = capsys.readouterr().out
    assert "steps = 6\n" in out and "lr = 0.01\n" in out
    assert out.startswith("memory of a step: ")
    assert "about " in out and f"done: 6 steps, in {tmp_path / 'run'}\n" in out
    assert read_toml(tmp_path / "run" / "settings.toml")["steps"] == 6
    assert checkpoint_steps(tmp_path / "run") == [4, 5, 6]
    assert main(["--resume", str(tmp_path / "run"), "--steps", "8"]) == 0
    assert checkpoint_steps(tmp_path / "run") == [6, 7, 8]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--batch-siz", "3"], "there is no option --batch-siz; did you mean --batch-size?"),
        (["--decay", "all"], "there is no option --decay; it is called --decayed-params"),
        (["--learning-rate", "1"], "there is no option --learning-rate; it is called --lr"),
        (["--stps", "3"], "there is no option --stps; did you mean --steps?"),
        (["--chekpoint-every", "3"], "did you mean --checkpoint-every?"),
        (["--run", "a\udce9"], "run must be valid Unicode, not 'a\\udce9'"),
        (["--steps", "many"], "--steps: must be a whole number, not 'many'"),
        (
            ["--schedule", "cos"],
            "--schedule: must be one of cosine, linear, constant, wsd, not 'cos'",
        ),
        (["word"], "word must follow the option that it belongs to"),
        (
            ["--val", "https://a.b/c*.bin"],
            "--val https://a.b/c*.bin: is a URL, not a file: download",
        ),
        (["--config", "{tmp}/none.toml"], "none.toml: No such file or directory"),
        (["--config", "{tmp}/bad.toml"], "bad.toml: there is no setting learnrate"),
        (["--resume", "{tmp}"], "not a run: it has no settings.toml"),
        (["--steps", "0"], "steps must be at least 1, not 0"),
        ([], "--model must name what to start from (gpt2, d12, a file, ...), or --n-layer"),
        (["--train", "{tmp}/none.bin"], "none.bin: No such file or directory"),
        (
            ["--train", "{tmp}"],
            "{tmp}: is a folder: name its files by a pattern: --train '{tmp}/*.bin'",
        ),
        (["--model", "d7"], "model must be one of d6, d12, d24, d36, d48, not d7"),
        (["--model", "d12", "--n_layer", "3"], "model d12 sets n_layer, n_head and n_embd"),
        (["--model", "{tmp}/none"], "none"),
        (["--n_layer", "1", "--n_head", "3", "--n_embd", "8"], "n_embd must be divisible"),
        (
            ["--model", "d6", "--block_size", "32"],
            "T must be at most the model's block_size of 32, not 64",
        ),
        (["--model", "d6", "--vocab_size", "9"], "vocab_size must be at least 257"),
        (
            ["--model", "d6", "--T", "400"],
            "too few tokens: 400, but order shuffle needs 401 at B=4, T=400: make T smaller",
        ),
        (
            ["--model", "d6", "--sample_every", "1", "--sample_prompt", "\udcff"],
            "must be valid Unicode",
        ),
    ],
)
def test_a_bad_setting_is_one_sentence_and_leaves_nothing(
    tmp_path, tokens, options, words, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("learnrate = 1\n")
    before = sorted(os.listdir(tmp_path))
    options = [option.format(tmp=tmp_path) for option in options]
    if "--train" not in options and "--resume" not in options:
        options += ["--train", str(tokens)]
    try:
        status = main(options)
    except SystemExit as error:
        status = error.code
    shown = capsys.readouterr().err
    assert status == 2
    words = words.replace("{tmp}", str(tmp_path))
    assert shown.startswith("error: ") and words in shown and shown.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_no_tokens_at_all_is_one_sentence(tmp_path, capsys):
    assert main(["--run", str(tmp_path / "run")]) == 2
    assert "train must name a token file" in capsys.readouterr().err
    (tmp_path / "empty.bin").write_bytes(b"")
    assert main(["--run", str(tmp_path / "run"), "--train", str(tmp_path / "empty.bin")]) == 2
    assert "empty.bin: contains no tokens" in capsys.readouterr().err


def test_a_run_in_use_is_one_sentence(tmp_path, tokens, capsys):
    run = Run.create(Settings(run=str(tmp_path / "run"), train=str(tokens)))
    command = [sys.executable, "-m", "npgpt.train_gpt2", "--resume", str(run.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    run.close()
    assert done.returncode == 2
    assert done.stderr == f"error: {run.folder}: in use by another process\n"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX's rights")
def test_a_read_only_folder_is_one_sentence(tmp_path, tokens, capsys):
    values = {"train": str(tokens), **SMALL}
    train(run=str(tmp_path / "run"), **values)  # imports what nobody may perhaps not read
    capsys.readouterr()
    with tempfile.TemporaryDirectory() as folder:  # where others may read, unlike tmp_path
        values["train"] = shutil.copy(tokens, folder)
        shutil.copy(tokens.with_name("train.tokenizer.json"), folder)
        run = Path(folder) / "runs" / "run"
        run.parent.mkdir(mode=0o555)
        os.chmod(folder, 0o755)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere: be nobody for a moment
        try:
            assert main([*as_options(values), "--run", str(run)]) == 2
        finally:
            os.seteuid(user)
    shown = capsys.readouterr().err
    assert shown == f"error: {run}: cannot be written: Permission denied\n"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX's limits")
def test_a_log_that_cannot_be_written_is_a_warning_and_the_run_goes_on(tmp_path, tokens, capsys):
    import resource

    values = {**SMALL, "train": str(tokens), "steps": 300, "checkpoint_every": 20}
    whole, limited = tmp_path / "whole", tmp_path / "limited"
    assert main([*as_options(values), "--run", str(whole)]) == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (whole / "log.jsonl").stat().st_size
    assert size > 1.2 * max(f.stat().st_size for f in whole.rglob("step_*/*"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(0.9 * size), limits[1]))  # of one file
    try:
        assert main([*as_options(values), "--run", str(limited)]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    warning = f"warning: {limited / 'log.jsonl'}: cannot be written: File too large\n"
    assert capsys.readouterr().err.count(warning) == 1
    parameters = [npgpt.GPT2.from_pretrained(run).params.flat for run in (limited, whole)]
    np.testing.assert_array_equal(*parameters)


def test_the_exit_status_of_a_run_that_diverged_is_1(monkeypatch, capsys):
    def diverged(**settings):
        raise TrainingError("the loss is nan")

    monkeypatch.setattr(train_gpt2, "train", diverged)
    assert main([]) == 1
    assert capsys.readouterr().err == "error: the loss is nan\n"


def test_the_exit_status_of_a_run_that_was_stopped_is_its_signal_s(tmp_path, monkeypatch, capsys):
    stopped = Trained(tmp_path, None, 9, None, None, 15, False)
    monkeypatch.setattr(train_gpt2, "train", lambda **settings: stopped)
    assert main([]) == 143
    again = command("train", "--resume", tmp_path)
    assert capsys.readouterr().out == f"stopped after step 9; continue with: {again}\n"

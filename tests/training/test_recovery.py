"""Runs that are killed, interrupted or damaged: nothing is lost, and they go on bit for bit."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from runs import SETTINGS, content

import npgpt
from npgpt.errors import ArgumentError, FileError, TrainingError
from npgpt.formats import run_checkpoint
from npgpt.formats.run_checkpoint import checkpoint_steps
from npgpt.training import loop
from npgpt.training.run import Run
from npgpt.training.settings import make_settings
from npgpt.training.train import train
from npgpt.training.trainer import Trainer
from npgpt.wording import command


def killed(tokens, folder, at):
    """Train in a process that ends itself by SIGKILL at the given place in the code."""
    settings = {**SETTINGS, **tokens, "run": str(folder)}
    code = f"""
import os, signal
from npgpt.formats import run_checkpoint
from npgpt.training import loop, run
from npgpt.training.train import train
from npgpt.training.trainer import Trainer
loop.draw_loss_curve = lambda *args: None
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
{at}
train(**{settings!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


IN_AN_UPDATE = """
right = Trainer.validate
def validate(self):
    if self.step == 14:
        kill()
    return right(self)
Trainer.validate = validate
"""


WHILE_WRITING = """
right = run_checkpoint.write_moments
def write_moments(path, config, moments):
    right(path, config, moments)
    if "00000010" in str(path):
        with open(path, "r+b") as file:
            file.truncate(2000)
        kill()
run_checkpoint.write_moments = write_moments
"""


BEFORE_RENAMING = """
right = run_checkpoint.sync
def sync(folder):
    if "00000015" in str(folder):
        kill()
run_checkpoint.sync = sync
"""


WHILE_REMOVING = """
run_checkpoint.shutil.rmtree = lambda *args, **kwargs: None
right = run.remove_checkpoint
def remove(folder):
    right(folder)
    if "00000005" in str(folder):
        kill()
run.remove_checkpoint = remove
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, tokens, compiled):
    train(run=str(tmp_path / "whole"), **tokens, **SETTINGS)
    places = {
        "update": (IN_AN_UPDATE, 10),
        "writing": (WHILE_WRITING, 7),
        "renaming": (BEFORE_RENAMING, 14),
        "removing": (WHILE_REMOVING, 10),
    }
    for name, (at, last) in places.items():
        killed(tokens, tmp_path / name, at)
        assert checkpoint_steps(tmp_path / name)[-1] == last, name
        train(resume=str(tmp_path / name))
        assert content(tmp_path / name) == content(tmp_path / "whole"), name


@pytest.mark.parametrize("number", loop.STOPPING)
def test_a_signal_finishes_the_step_and_the_run_goes_on(tmp_path, tokens, monkeypatch, number):
    whole = train(run=str(tmp_path / "whole"), **tokens, **SETTINGS)
    update = Trainer.update

    def signalled(trainer):
        if trainer.step == 8:
            os.kill(os.getpid(), number)
        return update(trainer)

    monkeypatch.setattr(Trainer, "update", signalled)
    handler = signal.getsignal(number)
    stopped = train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    assert (stopped.step, stopped.signal) == (9, number)
    assert checkpoint_steps(stopped.folder)[-1] == 9
    assert signal.getsignal(number) is handler
    monkeypatch.undo()
    assert content(train(resume=stopped.folder).folder) == content(whole.folder)


def test_a_second_signal_ends_at_once_but_not_the_same_one_twice(monkeypatch):
    with loop.stop_on_signal() as stopped:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
    assert stopped == [signal.SIGTERM]
    monkeypatch.setattr(loop, "SAME_SIGNAL", 0.0)
    with loop.stop_on_signal() as stopped, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # until Python has called the handler
        assert stopped == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


@pytest.mark.parametrize(
    "method, words, good",
    [("forward_backward", "the loss", 7), ("gradient_norm", "the gradients' norm", 8)],
)
def test_a_run_that_diverges_keeps_its_last_good_state(
    tmp_path, tokens, monkeypatch, method, words, good
):
    """A loss is that of the weights before the update, so these are good with a norm of nan."""
    update = Trainer.update

    def diverges(trainer):
        if trainer.step == 8:
            monkeypatch.setattr(trainer.model, method, lambda *a, **k: float("nan"))
        return update(trainer)

    monkeypatch.setattr(Trainer, "update", diverges)
    with pytest.raises(TrainingError) as caught:
        train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    folder = tmp_path / "run" / "checkpoints" / f"step_{good:08d}"
    assert str(caught.value) == (
        f"{words} is nan in step 9: stopped before the update; the last good state is {folder}"
    )
    assert checkpoint_steps(tmp_path / "run") == ([7, 8] if good == 8 else [5, 7])
    npgpt.read_checkpoint(folder / "model.bin")


def test_a_reader_who_leaves_does_not_end_the_run(tmp_path, tokens):
    settings = {**SETTINGS, **tokens, "run": str(tmp_path / "run")}
    code = f"import npgpt; npgpt.train(**{settings!r})"
    command = f'{sys.executable} -c "$CODE" | head -n 50 > /dev/null'
    done = subprocess.run(
        command, shell=True, env={**os.environ, "CODE": code}, capture_output=True, text=True
    )
    assert done.stderr.replace("compiling kernels for this machine ...\n", "") == ""
    assert checkpoint_steps(tmp_path / "run")[-1] == 20


def test_a_state_without_all_that_it_needs_is_one_sentence(tmp_path, tokens):
    run = train(run=str(tmp_path / "run"), **tokens, **SETTINGS).folder
    path = run / "checkpoints" / "step_00000020" / "state.json"
    state = json.loads(path.read_text())
    del state["norms"]
    path.write_text(json.dumps(state))
    with pytest.raises(FileError, match="step_00000020: the state is damaged: 'norms'"):
        train(resume=run, steps=30)


def test_weights_that_are_no_numbers_are_not_kept(tmp_path, tokens, monkeypatch):
    update = Trainer.update

    def diverges(trainer):
        if trainer.step == 8:
            trainer.model.params.wte[:] = np.nan
        return update(trainer)

    monkeypatch.setattr(Trainer, "update", diverges)
    with pytest.raises(TrainingError, match="the last good state is .*step_00000007"):
        train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    assert checkpoint_steps(tmp_path / "run")[-1] == 7


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["validate", "sample", "forward_backward"])
def test_what_fails_after_an_update_loses_nothing(tmp_path, tokens, monkeypatch, where, error):
    settings = {**tokens, **SETTINGS, "sample_every": 4, "checkpoint_every": 0}
    whole = train(run=str(tmp_path / "whole"), **settings)
    owner = npgpt.GPT2 if where == "forward_backward" else Trainer
    calls, right = itertools.count(), getattr(owner, where)

    def fails(*args, **options):
        if next(calls) == 3:
            raise error
        return right(*args, **options)

    monkeypatch.setattr(owner, where, fails)
    with pytest.raises(error):
        train(run=str(tmp_path / "run"), **settings)
    monkeypatch.undo()
    steps = checkpoint_steps(tmp_path / "run")
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert steps[-1] == max(json.loads(line)["step"] for line in log)  # all that was done
    assert content(train(resume=tmp_path / "run").folder) == content(whole.folder)


def test_what_fails_within_an_update_of_the_weights_is_not_kept(tmp_path, tokens, monkeypatch):
    right = npgpt.layers.adamw_update
    calls = itertools.count()

    def fails(p, *args):
        if next(calls) == 12:
            p[: p.size // 2] = 0
            raise KeyboardInterrupt
        right(p, *args)

    monkeypatch.setattr(npgpt.kernels, "adamw_update", fails)
    with pytest.raises(KeyboardInterrupt):
        train(run=str(tmp_path / "run"), **tokens, **{**SETTINGS, "val_every": 0})
    monkeypatch.undo()
    for step in checkpoint_steps(tmp_path / "run"):
        folder = tmp_path / "run" / "checkpoints" / f"step_{step:08d}"
        params = npgpt.GPT2.from_pretrained(folder / "model.bin").params
        assert params.wte.all()


@pytest.mark.parametrize("damage", [np.nan, -1.0])
def test_moments_that_no_run_has_are_refused(tmp_path, tokens, damage):
    run = train(run=str(tmp_path / "run"), **tokens, **SETTINGS).folder
    folder = run / "checkpoints" / f"step_{checkpoint_steps(run)[-1]:08d}"
    state = json.loads((folder / "state.json").read_text())
    del state["crc32"]  # as if it had been written so
    (folder / "state.json").write_text(json.dumps(state))
    content = np.fromfile(folder / "state.bin", "<f4")
    content[-1] = damage
    content.tofile(folder / "state.bin")
    with pytest.raises(FileError, match="the state is damaged: v.* to continue from step_"):
        train(resume=run, steps=30)


def test_a_full_disk_loses_nothing(tmp_path, tokens, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    def write_moments(path, *rest, right=run_checkpoint.write_moments):
        full() if int(path.parent.name[5:13]) > 6 else right(path, *rest)

    monkeypatch.setattr(run_checkpoint, "write_moments", write_moments)
    with pytest.raises(FileError, match="step_00000007: cannot be written: No space left"):
        train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    monkeypatch.undo()
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["step_00000005"]
    whole = train(run=str(tmp_path / "whole"), **tokens, **SETTINGS)
    assert content(train(resume=tmp_path / "run").folder) == content(whole.folder)


def test_a_run_without_a_checkpoint_goes_on_with_other_steps(tmp_path, tokens):
    settings = {**SETTINGS, **tokens, "run": str(tmp_path / "run"), "warmup": 0}
    run = Run.create(make_settings(settings))
    run.close()  # as a kill before the first checkpoint leaves it
    assert train(resume=tmp_path / "run", steps=4).step == 4


def test_a_folder_of_others_is_not_taken_for_a_run(tmp_path, tokens):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "main.log").write_text("mine")
    with pytest.raises(
        ArgumentError, match="--run .*run: this folder holds main.log and no run: name"
    ):
        train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    with pytest.raises(ArgumentError, match="run must name a folder"):
        train(run="", **tokens, **SETTINGS)
    assert os.listdir(tmp_path / "run") == ["main.log"]


def test_a_finished_run_says_how_it_goes_on(tmp_path, tokens, capsys):
    train(run=str(tmp_path / "run"), **tokens, **SETTINGS)
    capsys.readouterr()
    train(resume=tmp_path / "run")
    more = command("train", "--resume", tmp_path / "run", "--steps", "N")
    assert f"has done its 20 steps; for more of them: {more}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_kill_between_a_validations_log_and_its_checkpoint(tmp_path, tokens, compiled):
    """It validates again, and the log has it once."""
    train(run=str(tmp_path / "whole"), **tokens, **{**SETTINGS, "checkpoint_every": 7})
    at = """
from npgpt.training.logs import RunLogs
right = RunLogs.validation
def validation(self, step, *losses):
    right(self, step, *losses)
    if step == 14:
        kill()
RunLogs.validation = validation
"""
    killed({**tokens, "checkpoint_every": 7}, tmp_path / "run", at)
    assert "s:14 tel:" in (tmp_path / "run" / "main.log").read_text()
    train(resume=tmp_path / "run")
    assert content(tmp_path / "run") == content(tmp_path / "whole")

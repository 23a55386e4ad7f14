"""A run's folder: one process at a time, logs that go back, which checkpoints are kept."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

import npgpt
from npgpt.errors import ArgumentError, FileError
from npgpt.formats.run_checkpoint import best_step, checkpoint_steps
from npgpt.model.optimizer import AdamW
from npgpt.parallel.communicator import ALONE
from npgpt.training.run import Run
from npgpt.training.settings import Settings
from npgpt.training.trainer import Update
from npgpt.wording import command, install_extra


@pytest.fixture
def settings(tmp_path):
    return Settings(run=str(tmp_path / "run"), keep=2, steps=9)


@pytest.fixture
def run(settings):
    run = Run.create(settings)
    yield run
    run.close()


def saved(run, params, step, val_loss):
    model = npgpt.GPT2(params.config, params=params, backend="numpy")
    moments = AdamW(model.backend).state(params.config)
    state = {"step": step, "val_loss": val_loss, **moments}
    run.save(SimpleNamespace(step=step, model=model, comm=ALONE, state=lambda: state))


def test_a_run_is_opened_with_the_settings_it_was_made_with(run, settings):
    run.close()
    again = Run.reopen(settings.run)
    assert again.settings == settings
    again.close()


def test_what_is_no_other_run_can_be_changed_and_is_recorded(run, settings):
    run.close()
    refused = Run.reopen(settings.run, steps=30)
    refused.close()  # before it began: what it was opened with is forgotten
    longer = Run.reopen(settings.run, steps=20, lr=0.5)
    longer.start_from(7)
    longer.close()
    assert longer.settings == Settings(run=settings.run, keep=2, steps=20, lr=0.5)
    changed = {"steps": [settings.steps, 20], "lr": [settings.lr, 0.5]}
    (line,) = (longer.folder / "changes.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 7, "changed": changed}
    with pytest.raises(ArgumentError, match="--seed, --warmup cannot change once .* leave out"):
        Run.reopen(settings.run, steps=20, warmup=1, seed=3)
    again = Run.reopen(settings.run)
    assert again.settings.steps == 20
    again.start_from(7)
    again.close()
    assert (longer.folder / "changes.jsonl").read_text().count("\n") == 1


def test_a_folder_with_a_run_is_not_begun_again(run, settings):
    again = re.escape(command("train", "--resume", settings.run))
    with pytest.raises(ArgumentError, match=f"there is a run in this folder: .* {again}, or name"):
        Run.create(settings)


def test_a_folder_without_a_run_is_nothing_to_go_on_with(tmp_path):
    with pytest.raises(FileError, match="not a run: it has no settings.toml"):
        Run.reopen(tmp_path)
    with pytest.raises(FileError, match="--resume .*none: no such folder"):
        Run.reopen(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_to_another_process(run, settings):
    code = f"from npgpt.training.run import Run; Run.reopen({settings.run!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith(f"FileError: {settings.run}: in use by another process\n")
    run.close()
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_in_the_way_is_one_sentence(tmp_path, settings):
    (tmp_path / "run").write_text("")
    with pytest.raises(FileError, match="run: cannot be written: "):
        Run.create(settings)


def test_what_a_killed_process_left_is_swept(run, settings, params):
    saved(run, params, 3, None)
    (run.folder / "checkpoints" / "step_00000004.partial").mkdir()
    (run.folder / "log.jsonl.77.partial").write_text("")
    (run.folder / "samples" / "step_00000004.txt.77.partial").write_text("")
    run.close()
    again = Run.reopen(settings.run)
    assert [path.name for path in (again.folder / "checkpoints").iterdir()] == ["step_00000003"]
    assert not list(again.folder.rglob("*.partial"))
    again.close()


def test_the_last_and_the_best_checkpoints_are_kept(run, params):
    for step, val_loss in ((1, 3.0), (2, 2.0), (3, 2.5), (4, None), (5, 2.6)):
        saved(run, params, step, val_loss)
    assert run.checkpoint_steps() == checkpoint_steps(run.folder) == [2, 4, 5]
    assert best_step(run.folder) == 2


def test_without_validation_the_last_is_the_best(run, params):
    assert best_step(run.folder) is None
    for step in (1, 2, 3):
        saved(run, params, step, None)
    assert best_step(run.folder) == 3 and run.checkpoint_steps() == [2, 3]


def test_a_checkpoint_that_is_there_gets_its_validation_loss_alone(run, params):
    saved(run, params, 1, None)
    folder = run.checkpoint_folder(1)
    before = (folder / "model.bin").stat().st_mtime_ns
    saved(run, params, 1, 4.0)
    assert json.loads((folder / "state.json").read_text())["val_loss"] == 4.0
    assert (folder / "model.bin").stat().st_mtime_ns == before


def update(step, loss=2.5):
    return Update(step, loss, lr=1e-4, norm=0.123, seconds=0.5, skipped=False)


def test_the_logs_are_json_lines_and_llm_c_s(run):
    run.start_from(0)
    run.logs.validation(0, 4.0)
    run.logs.update(update(1), tokens=100)
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"step": 0, "val_loss": 4.0}
    assert json.loads(lines[1]) == {
        "step": 1, "loss": 2.5, "lr": 1e-4, "norm": 0.123, "seconds": 0.5, "skipped": False,
        "tokens_per_second": 200.0,
    }  # fmt: skip
    text = (run.folder / "main.log").read_text()
    assert text == "s:0 tel:4.0000\ns:0 trl:2.5000 lr:0.000100 norm:0.12\n"


def test_logs_go_back_to_the_step_that_a_run_goes_on_from(run):
    run.start_from(0)
    run.logs.validation(0, 4.0)
    for step in (1, 2, 3):
        run.logs.update(update(step), 100)
    kept = {name: (run.folder / name).read_text() for name in ("log.jsonl", "main.log")}
    run.logs.validation(3, 3.0)
    run.logs.update(update(4), 100)
    for name, half in (("log.jsonl", '{"step": 3, "lo'), ("main.log", "s:2 tr")):
        with open(run.folder / name, "a") as file:
            file.write(half)  # killed while it wrote
    run.start_from(3)
    run.logs.update(update(4), 100)
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 3, 4]
    assert (run.folder / "main.log").read_text().startswith(kept["main.log"])
    assert len((run.folder / "main.log").read_text().splitlines()) == 6
    run.start_from(0)
    assert (run.folder / "log.jsonl").read_text() == (run.folder / "main.log").read_text() == ""


def test_a_sample_is_a_file(run):
    run.start_from(0)
    run.logs.sample(30, "ünd\n")
    run.logs.sample(30, "once more ü")
    assert (run.folder / "samples" / "step_00000030.txt").read_text("utf-8") == "once more ü"


def test_tensorboard_gets_what_the_log_gets(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    settings = Settings(run=str(tmp_path / "run"), tensorboard=True)
    run = Run.create(settings)
    run.start_from(0)
    run.logs.update(update(1), 100)
    run.close()
    (events,) = (run.folder / "tensorboard").iterdir()
    assert b"tokens_per_second" in events.read_bytes()


def test_tensorboard_without_its_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    settings = Settings(run=str(tmp_path / "run"), tensorboard=True)
    with pytest.raises(ArgumentError, match=re.escape(install_extra("tensorboard"))):
        Run.create(settings)
    assert not (tmp_path / "run").exists()

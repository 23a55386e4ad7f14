"""How a run shows: lines where there is no terminal, a bar where there is one."""

import sys

import pytest

from npgpt.training.progress import Progress, format_duration
from npgpt.training.trainer import Update


def update(step, skipped=False, seconds=0.5):
    return Update(step, 2.5, 1e-3, 0.5, seconds=seconds, skipped=skipped)


def test_without_a_terminal_there_are_about_100_lines(capsys):
    progress = Progress(0, 1000, tokens_per_step=50)
    for step in range(1, 1001):
        progress.update(update(step))
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 101
    assert lines[0] == "step 1/1000: loss 2.5000, lr 1.00e-03, norm 0.50"
    assert lines[1] == f"step 10/1000{lines[0][11:]}, 100 tok/s, 0:08:15 left"
    assert lines[-1].startswith("step 1000/1000: ") and lines[-1].endswith("0:00:00 left")


@pytest.mark.parametrize("terminal", [False, True])
def test_the_first_step_which_compiles_does_not_count_in_the_time_left(
    terminal, capsys, monkeypatch
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = Progress(6, 1000, tokens_per_step=50, log_every=1)  # of a resumed run
    progress.update(update(7, seconds=60))
    progress.update(update(8, seconds=0.5))
    progress.close()
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert "left" not in first and second.endswith("norm 0.50, 100 tok/s, 0:08:16 left")
    assert not terminal or "0:08:16 left]" in shown.err


@pytest.mark.parametrize("terminal", [False, True])
def test_log_every_gives_a_line_every_so_many_steps(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = Progress(0, 25, tokens_per_step=50, log_every=10)
    for step in range(1, 26):
        progress.update(update(step))
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"step {n}/25" for n in (1, 10, 20, 25)]


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_shows_nothing(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = Progress(0, 2, tokens_per_step=50, log_every=1, quiet=True)
    progress.update(update(1, skipped=True))
    progress.say("a line")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_an_update_that_was_skipped_is_told(capsys):
    Progress(0, 1000, tokens_per_step=50).update(update(7, skipped=True))
    assert capsys.readouterr().out.startswith("step 7: skipped, an outlier: loss 2.5000")


def test_on_a_terminal_there_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress(4, 10, tokens_per_step=50)
    progress.update(update(5))
    progress.say("a line above it")
    progress.close()
    shown = capsys.readouterr()
    assert "5/10" in shown.err and "loss 2.5000" in shown.err
    assert shown.out == "a line above it\n"


def test_the_clock():
    assert [format_duration(s) for s in (0, 59.6, 3661, 360000)] == [
        "0:00:00",
        "0:01:00",
        "1:01:01",
        "100:00:00",
    ]

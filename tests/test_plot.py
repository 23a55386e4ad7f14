"""The pictures of losses: what is drawn where, what counts of a log, and bad input."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from npgpt import ArgumentError, FileError
from npgpt.inside.figure import COLOURS
from npgpt.plot import main
from npgpt.training.curves import AXES, LINES, curves, draw, draw_run, picture, smoothed
from npgpt.wording import install_extra

pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"


def trained(step, loss, speed=100.0, seconds=0.5):
    rest = {"lr": 1e-4, "norm": 0.9, "tokens_per_second": speed, "seconds": seconds}
    return {"step": step, "loss": loss, **rest}


def validated(step, loss):
    return {"step": step, "val_loss": loss}


@pytest.fixture
def run(tmp_path):
    """Makes a run's folder with these entries in its log -> its path."""

    def make(name, *entries):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        (folder / "log.jsonl").write_text("".join(line + "\n" for line in lines))
        return folder

    return make


@pytest.fixture
def short(run):
    """Four updates and three validations: before the first, after the second and the fourth."""
    losses = [trained(1, 5.0, 100, 2), trained(2, 4.0, 50, 4), trained(3, 3.5), trained(4, 3.25)]
    return run(
        "short", validated(0, 5.5), *losses[:2], validated(2, 4.5), *losses[2:], validated(4, 4.25)
    )


@pytest.mark.parametrize(
    ("x", "train_x", "val_x"),
    [
        ("step", [0, 1, 2, 3], [0, 2, 4]),
        ("seconds", [0, 2, 6, 6.5], [0, 6, 7]),
        ("tokens", [0, 200, 400, 450], [0, 400, 500]),
    ],
)
def test_a_loss_stands_at_what_had_been_done_when_it_was_computed(x, train_x, val_x, short):
    (curve,) = curves([short], x)
    assert curve.name == "short"
    assert curve.loss.tolist() == [5.0, 4.0, 3.5, 3.25]
    assert curve.val_loss.tolist() == [5.5, 4.5, 4.25]
    assert curve.x.tolist() == train_x
    assert curve.val_x.tolist() == val_x


def test_the_last_entry_of_a_step_counts(run):
    resumed = run(
        "resumed", trained(1, 5.0), trained(2, 4.0), validated(2, 4.5), trained(3, 9.0),
        trained(2, 4.1), validated(2, 4.6), trained(3, 3.0),
    )  # fmt: skip
    (curve,) = curves([resumed])
    assert curve.x.tolist() == [0, 1, 2]
    assert curve.loss.tolist() == [5.0, 4.1, 3.0]
    assert curve.val_loss.tolist() == [4.6]


def test_the_steps_are_put_in_order(run):
    entries = [trained(2, 4.0), trained(1, 5.0), validated(2, 4.5), validated(0, 5.5)]
    (curve,) = curves([run("mixed", *entries)])
    assert (curve.x.tolist(), curve.loss.tolist()) == ([0, 1], [5.0, 4.0])
    assert (curve.val_x.tolist(), curve.val_loss.tolist()) == ([0, 2], [5.5, 4.5])


@pytest.mark.parametrize(
    "tail", ['{"step": 5, "lo', '{"step": 5, "val_loss": 3', "\0\0\0", "\xff{"]
)
def test_a_line_that_was_not_finished_does_not_count(tail, short):
    before = curves([short])[0]
    with open(short / "log.jsonl", "a", encoding="latin-1") as file:
        file.write(tail)
    after = curves([short])[0]
    assert after.loss.tolist() == before.loss.tolist()
    assert after.val_loss.tolist() == before.val_loss.tolist()
    with open(short / "log.jsonl", "a") as file:
        file.write("\n")  # now it is a line, and a wrong one
    with pytest.raises(FileError, match=r"log.jsonl: line 8 is no entry of a run's log"):
        curves([short])


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "3", "[]", '"val_loss"', "{}", "[" * 100_000, '{"step": 5}',
        '{"step": 5, "loss": 2.0}', '{"step": "5", "val_loss": 2.0}', '{"step": 5, "val_loss": ""}',
        '{"step": -1, "val_loss": 2.0}', '{"step": true, "val_loss": 2.0}', '{"val_loss": 2.0}',
        '{"step": NaN, "val_loss": 2.0}', '{"step": 5, "val_loss": null}',
        '{"step": 5, "loss": 2.0, "seconds": -1, "tokens_per_second": 3}',
        '{"step": 5, "loss": 2.0, "seconds": 1, "tokens_per_second": 1e999}',
    ],
)  # fmt: skip
def test_another_malformed_line_is_one_sentence(line, run, tmp_path, capsys):
    folder = run("bad", trained(1, 5.0), line, trained(2, 5.0))
    assert main([str(folder), "--out", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {folder / 'log.jsonl'}: line 2 is no entry of a run's log\n"
    assert not (tmp_path / "out.png").exists()
    assert curves([run("bad", trained(1, 5.0), trained(2, 5.0))])


def test_a_folder_without_losses_is_one_sentence(run, tmp_path):
    with pytest.raises(FileError, match="not a run: it has no log.jsonl"):
        curves([tmp_path])
    with pytest.raises(FileError, match="log.jsonl: there are no losses in it yet"):
        curves([run("empty")])


def test_the_mean_follows_a_straight_line_and_evens_out_noise(rng):
    line = np.linspace(5, 3, 50)
    np.testing.assert_allclose(smoothed(line, 4)[:-4], line[:-4])
    noise = rng.normal(3, 1, 1000)
    assert smoothed(noise, 0).tolist() == noise.tolist()
    even = smoothed(noise, 50)
    assert even[0] == noise[0]
    assert even[500] == pytest.approx(noise[450:551].mean())
    assert even[-1] == pytest.approx(noise[-51:].mean())
    assert even[100:].std() < noise.std() / 5
    assert smoothed(np.array([]), 5).size == 0


def test_a_loss_that_is_no_number_leaves_a_gap(run):
    losses = [5.0, math.nan, math.inf, 4.0, 4.0, 4.0, 4.0]
    folder = run("gap", *(trained(i, loss) for i, loss in enumerate(losses, 1)), validated(7, 3.0))
    (curve,) = curves([folder])
    assert np.isnan(curve.loss).tolist() == [False, True, True] + 4 * [False]
    assert np.isfinite(smoothed(curve.loss, 1)[[0, 4, 5, 6]]).all()
    draw_run(folder)


def test_the_picture_has_both_losses_of_every_run(short, run):
    other = run("other", *(trained(i, 6 - 0.01 * i) for i in range(1, 201)))
    drawn = curves([short, other])
    axes = picture(drawn, smooth=2).axes[0]
    thin, bold, marks, other_thin, other_bold = axes.lines
    for line in (thin, bold):
        np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_array_equal(thin.get_ydata(), [5.0, 4.0, 3.5, 3.25])
    np.testing.assert_array_equal(bold.get_ydata(), smoothed(drawn[0].loss, 2))
    np.testing.assert_array_equal(marks.get_xydata(), [[0, 5.5], [2, 4.5], [4, 4.25]])
    assert thin.get_linewidth() < bold.get_linewidth()
    assert marks.get_linestyle() == "None" and marks.get_marker() != "None"
    np.testing.assert_array_equal(other_thin.get_ydata(), drawn[1].loss)
    np.testing.assert_array_equal(other_bold.get_ydata(), smoothed(drawn[1].loss, 2))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["training, short", "validation, short", "training, other"]
    assert "updates" in axes.get_xlabel() and "nats" in axes.get_ylabel()
    assert "tokens" in picture(drawn, "tokens").axes[0].get_xlabel()
    assert "seconds" in picture(drawn, "seconds").axes[0].get_xlabel()
    axes = picture(drawn).axes[0]  # of four steps the mean is each one's own, of 200 not
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), drawn[0].loss)
    np.testing.assert_array_equal(axes.lines[4].get_ydata(), smoothed(drawn[1].loss, 4))


def test_a_run_of_which_only_the_first_validation_is_known_is_drawn(run):
    folder = run("new", validated(0, 5.5))
    for x in AXES:
        (curve,) = curves([folder], x)
        assert (curve.val_x.tolist(), curve.val_loss.tolist()) == ([0], [5.5])
        assert picture([curve], x).axes[0].lines[2].get_xydata().tolist() == [[0, 5.5]]
    draw_run(folder)


def test_runs_differ_in_colour_and_in_line(run):
    folders = [run(f"run{i}", trained(1, 5.0), trained(2, 4.0)) for i in range(10)]
    bold = picture(curves(folders)).axes[0].lines[1::2]
    looks = [(line.get_color(), line.get_linestyle()) for line in bold]
    assert len(set(looks)) == 10
    assert {colour for colour, _ in looks} == set(COLOURS)
    assert {line for _, line in looks} == set(LINES)


def test_runs_of_one_name_are_told_by_their_paths(short, run, tmp_path):
    (tmp_path / "sub").mkdir()
    other = run("sub/short", trained(1, 5.0))
    assert [curve.name for curve in curves([short, other])] == [str(short), str(other)]


def test_a_name_that_is_no_text_is_drawn(run, tmp_path):
    folder = run("run\udcff", trained(1, 5.0), trained(2, 4.0))
    assert [curve.name for curve in curves([folder])] == ["run\ufffd"]
    draw([folder], tmp_path / "out.png")
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize("name", ["_hidden", "a$b$", "$", r"$\frac$", "a_{b", "n" * 200])
def test_a_name_is_shown_as_it_is(name, run, tmp_path):
    folder = run(name, trained(1, 5.0), trained(2, 4.0))
    draw([folder], tmp_path / "out.png")
    (text,) = picture(curves([folder])).axes[0].get_legend().get_texts()
    assert text.get_text() == f"training, {name}"
    assert not text.get_parse_math()


def test_the_program_writes_one_png(short, run, tmp_path, monkeypatch, capsys):
    other = run("other", *(trained(i, 6 - 0.01 * i) for i in range(1, 201)))
    monkeypatch.chdir(tmp_path)
    assert main([str(short), str(other)]) == 0
    assert capsys.readouterr().out == "compare.png: 2 runs\n"
    pictures = {(tmp_path / "compare.png").read_bytes()}
    for options in (["--x", "tokens"], ["--x", "seconds"], ["--smooth", "20"], ["--x", "step"]):
        assert main([str(short), str(other), *options, "--out", "other.PNG"]) == 0
        pictures.add((tmp_path / "other.PNG").read_bytes())
    assert all(picture.startswith(PNG) for picture in pictures)
    assert len(pictures) == 4  # --x step is the default
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["compare.png", "other.PNG"]


def test_a_run_gets_its_own_picture(short):
    assert draw_run(short) == short / "loss.png"
    assert (short / "loss.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: RUN"),
        (["short", "none"], "none: not a run: it has no log.jsonl"),
        (["short", "--smooth", "-1"], "--smooth must be at least 0, not -1"),
        (["short", "--x", "hours"], "--x: must be one of step, tokens, seconds, not 'hours'"),
        (["short", "--out", "out.svg"], "a picture's name must end in .png, not out.svg"),
        (["short", "--out", "no/out.png"], "no/out.png: cannot be written: No such file"),
    ],
)
def test_bad_input_is_one_sentence(options, message, short, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        assert main(options) == 2
    except SystemExit as end:  # of the parser
        assert end.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_missing_matplotlib_is_one_sentence(short, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ArgumentError, match=re.escape(f"needs matplotlib: {install_extra('plot')}")
    ):
        draw_run(short)
    assert not (short / "loss.png").exists()


def test_matplotlib_is_imported_late_and_its_pyplot_never(short):
    code = (
        "import sys; from npgpt.training.curves import draw_run;"
        "print('matplotlib' in sys.modules);"
        f"draw_run({str(short)!r}); print('matplotlib' in sys.modules);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]

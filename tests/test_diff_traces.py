"""npgpt diff: its report as text, JSON and a page, and its exit status."""

import json
import re

import numpy as np
import pytest
from porting.traces import traced, write_trace

from npgpt import GPT2Config
from npgpt.diff_traces import main
from npgpt.formats.llmc import write_checkpoint
from npgpt.porting.pictures import png
from npgpt.tracing.record import Recorder
from npgpt.tracing.seeded import random_batch, random_parameters

CONFIG = GPT2Config(block_size=8, vocab_size=23, n_layer=2, n_head=2, n_embd=8)
MODEL = (random_parameters(CONFIG, 3), *random_batch(3, 2, 6, 23))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the oracle's trace and a right one."""
    folder = tmp_path_factory.mktemp("traces")
    write_trace(Recorder(*MODEL), folder / "expected.safetensors")
    np.savez(folder / "right.npz", **traced(Recorder(*MODEL, backend="numpy")))
    return folder


def diff(folder, mine, *options):
    return main([str(folder / "expected.safetensors"), str(folder / mine), *options])


def wrong_trace(folder, **changed):
    with np.load(folder / "right.npz") as archive:
        arrays = {**archive, **changed}
    np.savez(folder / "wrong.npz", **{name: a for name, a in arrays.items() if a is not None})
    return arrays


def test_all_right(folder, capsys):
    assert diff(folder, "right.npz") == 0
    out = capsys.readouterr().out
    assert "all right: 127 tensors" in out and "B 2, T 6, C 8, L 2, NH 2, V 23" in out


def test_the_report_says_what_where_and_why(folder, capsys):
    with np.load(folder / "right.npz") as archive:
        scores = archive["preatt.1"] * np.float32(2)
    wrong_trace(folder, **{"preatt.1": scores, "dqkvw.0": None})
    page, content = folder / "report.html", folder / "report.json"
    assert diff(folder, "wrong.npz", "--html", str(page), "--json", str(content)) == 1
    out = capsys.readouterr().out
    assert "first wrong: preatt.1 (2, 2, 6, 6)" in out
    assert "84 of 144 numbers are wrong" in out
    assert "cause: attention scale: the scores are not divided by sqrt(hs)" in out
    assert re.search(r"everything before it is right: \d\d tensors, up to qkv.1", out)
    assert "not in MINE: dqkvw.0" in out
    report = json.loads(content.read_text())
    assert report["first_wrong"] == "preatt.1" and report["right"] is False
    found = {entry["name"]: entry for entry in report["tensors"]}
    assert found["preatt.1"]["cause"] == "attention scale" and found["qkv.1"]["status"] == "right"
    assert found["preatt.1"]["made_of"] == ["qkv.1"] and found["dqkvw.0"]["status"] == "absent"
    assert list(scores.shape) == found["preatt.1"]["shape"]


def test_the_page_holds_all_it_shows(folder):
    wrong_trace(folder, **{"lnf": np.full((2, 6, 8), np.nan, "<f4"), "loss": np.float32(1)})
    page = folder / "report.html"
    assert diff(folder, "wrong.npz", "--html", str(page)) == 1
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") >= 3 and "<svg" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "url(" not in text
    assert "prefers-color-scheme: dark" in text and "First wrong: lnf" in text
    assert "not finite" in text
    assert diff(folder, "right.npz", "--html", str(page)) == 0
    assert '<h1 class="good">All right</h1>' in page.read_text(encoding="utf-8")


def test_a_picture_is_a_png(rng, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    pixels = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    (tmp_path / "p.png").write_bytes(png(pixels))
    read = np.round(image.imread(tmp_path / "p.png") * 255).astype(np.uint8)
    np.testing.assert_array_equal(read[..., :3], pixels)


def test_a_map_of_names(folder, capsys):
    arrays = wrong_trace(folder)
    own = {f"layers.{i}.attention": arrays[f"atty.{i}"] for i in range(2)}
    np.savez(folder / "own.npz", **own, encoded=arrays["encoded"])
    (folder / "names.toml").write_text('atty = "layers.{block}.attention"\n')
    assert diff(folder, "own.npz", "--map", str(folder / "names.toml")) == 0
    assert "all right: 3 of 124 tensors" in capsys.readouterr().out
    own["layers.1.attention"] = own["layers.1.attention"] * 2
    np.savez(folder / "own.npz", **own)
    assert diff(folder, "own.npz", "--map", str(folder / "names.toml")) == 1
    out = capsys.readouterr().out
    assert "first wrong: atty.1 (2, 6, 8), there layers.1.attention" in out
    assert "or the mistake is in" in out and "which MINE does not have" in out


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        ("none.npz", "none.npz"),
        ("expected.json", "not a safetensors file"),
        ("model.bin", "not a trace but a GPT-2 checkpoint; npgpt trace makes a trace"),
        (".", "no manifest.txt"),
    ],
)
def test_what_cannot_be_compared(mine, words, folder, capsys):
    (folder / "expected.json").write_text('{"a": 1}')
    write_checkpoint(folder / "model.bin", MODEL[0])
    assert diff(folder, mine) == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1

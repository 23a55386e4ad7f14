"""The page as one file: complete, harmless text, and the session's numbers in it."""

import json
import re

import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL, run_blocks

from npgpt.__main__ import main
from npgpt.data.descriptions import write_tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.explore import export
from npgpt.explore.export import STEPS, key, write_page
from npgpt.explore.server import page_files
from npgpt.explore.session import Session
from npgpt.explore.wire import unpacked

TEXT = "she </script> sells"


@pytest.fixture(scope="module")
def session():
    return Session.named("tiny")


@pytest.fixture(scope="module")
def page(session, tmp_path_factory):
    path = write_page(session, TEXT, tmp_path_factory.mktemp("page") / "a" / "b")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def saved(page):
    (data,) = re.findall(r'<script type="application/json" id="saved">(.*?)</script>', page)
    return json.loads(data)


def test_it_is_one_file_that_loads_nothing(page):
    assert re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?!data:,)", page) == []
    assert "@import" not in page and "url(" not in page
    assert re.findall(r"https?://", page) == ["http://"]  # the name of SVG's elements
    for name, content in page_files().items():
        if name != "index.html":
            assert content.decode() in page, name


def test_its_numbers_are_the_sessions(session, saved):
    first = saved["frames"][0]["answers"]
    T = len(session.encode(TEXT))
    shown = first[key("picture", [])]
    np.testing.assert_array_equal(unpacked(shown["att"]), session.picture(TEXT)["att"])
    for p in range(T):
        shown = first[key("position", [p, None])]
        expected = session.position(TEXT, p)
        np.testing.assert_array_equal(unpacked(shown["logits"]), expected["logits"])
        other = expected["top"][1]["id"]
        assert first[key("position", [p, other])]["token"]["id"] == other
    for name, row in (("dfcb.1", []), ("ln1.0", [3]), ("att.1", [2, 5]), ("dqkvw.0", None)):
        shown = first[key("numbers", [name, row, None, None])]
        expected = session.numbers(TEXT, name, row)
        np.testing.assert_array_equal(unpacked(shown["values"]), expected["values"])
        index = [*expected["row"], expected["largest"][0]]
        assert first[key("explain", [name, index, None, None])]["stored"] == pytest.approx(
            float(expected["values"][expected["largest"][0]])
        )
    assert first[key("check", ["dfcb.1", None, None])]["ok"]
    off = [{"off": "head", "block": 1, "head": 2}]
    assert first[key("picture", [], off)]["loss"] == session.picture(TEXT, off)["loss"]


def test_it_has_the_steps_and_leaves_the_model_as_it_was(session, saved):
    assert session.learning.updates == 0 and session.learning.losses == []
    assert [frame["steps"] for frame in saved["frames"]] == [0, *np.cumsum(STEPS)]
    losses = [frame["answers"][key("picture", [])]["loss"] for frame in saved["frames"]]
    assert losses == sorted(losses, reverse=True) and losses[0] == session.picture(TEXT)["loss"]
    assert len(saved["losses"]) == sum(STEPS)
    np.testing.assert_allclose(saved["losses"][1], losses[1], rtol=1e-4)


def test_of_a_large_model_the_last_position_has_all(session, monkeypatch, tmp_path):
    monkeypatch.setattr(export, "SMALL", 0)
    text = "shells"
    path = write_page(session, text, tmp_path)
    (data,) = re.findall(r'id="saved">(.*?)</script>', path.read_text(encoding="utf-8"))
    first, *_, last = (frame["answers"] for frame in json.loads(data)["frames"])
    T = len(session.encode(text))
    said = [name for name in first if name.startswith("position|")]
    assert len(said) == T + export.TOKENS
    assert {name.split("|")[1] for name in last if name.startswith("position|")} == {str(T - 1)}
    assert key("numbers", ["ln1.0", [T - 1], None, None]) in first
    assert key("numbers", ["ln1.0", [0], None, None]) not in first


def test_keys_are_those_that_the_page_makes():
    assert key("picture", []) == "picture|"
    assert key("numbers", ["att.1", [2, 5], None, None]) == "numbers|att.1|2,5|||"
    assert key("picture", [], [{"off": "mlp", "block": 0}]) == 'picture|[{"off":"mlp","block":0}]'


def test_the_program_writes_it(tmp_path, capsys):
    model = tmp_path / "model.bin"
    model.write_bytes(TINY_MODEL.read_bytes())
    tokenizer = Session.named("tiny").source.tokenizer
    write_tokenizer(model, tokenizer.description)
    out = tmp_path / "out"
    assert main(["explore", str(model), "--text", "shells", "--export", str(out)]) == 0
    assert capsys.readouterr().out == f"written: {out / 'index.html'}\n"
    assert '"shells"' in (out / "index.html").read_text(encoding="utf-8")


def test_the_code_of_the_documentations_page_runs(tmp_path):
    text = (ROOT / "doc" / "explore.md").read_text(encoding="utf-8")
    done = run_blocks(text, tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_written_is_told_and_leaves_nothing(session, tmp_path):
    with pytest.raises(ArgumentError, match="at most 40 tokens"):
        write_page(session, "x" * 50, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        write_page(session, "shells", tmp_path / "file" / "below")

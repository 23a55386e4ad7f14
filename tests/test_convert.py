"""npgpt convert: there and back without a change, and SOURCE is never what is overwritten."""

import numpy as np
import pytest
from helpers import TINY_MODEL

from npgpt import read_checkpoint, write_checkpoint
from npgpt.convert import main
from npgpt.data.descriptions import read_tokenizer, write_tokenizer
from npgpt.data.tokenizer import BytesTokenizer
from npgpt.formats.models import load_model
from npgpt.wording import size_text

pytest.importorskip("safetensors")

BYTES = BytesTokenizer().description


@pytest.fixture
def source(params, tmp_path):
    """The tiny model as an llm.c file, with a tokenizer beside it."""
    write_checkpoint(tmp_path / "source.bin", params)
    write_tokenizer(tmp_path / "source.bin", BYTES)
    return tmp_path / "source.bin"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_to_hugging_face_and_back_is_the_same_file(source, tmp_path, capsys):
    folder, back = tmp_path / "folder", tmp_path / "back.bin"
    assert main([str(source), str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"{folder / 'model.safetensors'}: Hugging Face (float32), 70,608 parameters, 285 kB\n"
    )
    assert main([str(folder), str(back)]) == 0
    assert capsys.readouterr().out == (
        f"{back}: llm.c, version 3 (float32, padded), 70,608 parameters,"
        f" {size_text(TINY_MODEL.stat().st_size)}\n"
    )
    assert back.read_bytes() == TINY_MODEL.read_bytes()
    assert load_model(folder)[1] == read_tokenizer(back) == BYTES


@pytest.mark.parametrize("version", [1, 3, 5])
def test_the_version_is_the_one_asked_for(version, source, params, tmp_path):
    target = tmp_path / "target.bin"
    assert main([str(source), str(target), "--version", str(version)]) == 0
    assert np.fromfile(target, "<i4", 2)[1] == version
    expected = params.flat
    rounding = 2**-8 if version == 5 else 0
    np.testing.assert_allclose(read_checkpoint(target).flat, expected, rtol=rounding)


def test_a_former_models_tokenizer_does_not_stay(tmp_path):
    write_tokenizer(tmp_path / "target.bin", BYTES)
    assert main([str(TINY_MODEL), str(tmp_path / "target.bin")]) == 0
    assert read_tokenizer(tmp_path / "target.bin") is None


def test_a_published_name_is_converted(source, tmp_path, monkeypatch):
    fetched = {"gpt2": source}
    monkeypatch.setattr("npgpt.formats.models.fetch", fetched.get)
    assert main(["gpt2", str(tmp_path / "target.bin")]) == 0
    assert (tmp_path / "target.bin").read_bytes() == source.read_bytes()


def test_source_is_not_overwritten(source, tmp_path, capsys):
    folder = tmp_path / "folder"
    assert main([str(source), str(folder)]) == 0
    (tmp_path / "link.bin").symlink_to(source)
    (folder / "inside.bin").write_bytes(source.read_bytes())
    before = content(tmp_path)
    for args in (
        [source, source],
        [tmp_path / "link.bin", source],
        [source, tmp_path / "link.bin"],
        [folder, folder],
        [folder / "model.safetensors", folder],
        [folder, folder / "inside.bin"],
        [folder, tmp_path / "folder" / ".." / "folder"],
    ):
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: TARGET must not replace ") and error.count("\n") == 1
    assert content(tmp_path) == before


def test_a_new_file_within_source_is_no_overwriting(source, tmp_path):
    folder = tmp_path / "folder"
    assert main([str(source), str(folder)]) == 0
    assert main([str(folder), str(folder / "model.bin")]) == 0
    assert main([str(folder / "model.bin"), str(folder)]) == 0
    assert load_model(folder)[1] == BYTES
    assert (folder / "model.bin").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["SOURCE", "out", "--version", "5"],
            "--version applies only to a TARGET that ends in .bin",
        ),
        (["SOURCE", "out.bin", "--version", "2"], "--version: must be one of 1, 3, 5, not 2"),
        (["SOURCE", "out.safetensors"], "out.safetensors: must end in .bin or be a folder"),
        (["SOURCE", "file"], "file: cannot be created: File exists"),
        (["SOURCE", "folder.bin"], "folder.bin: is a folder"),
        (["SOURCE", "gone/out.bin"], "out.bin: cannot be written: No such file"),
        (["gone.bin", "out.bin"], "gone.bin: not found; a model is a Hugging Face folder"),
        (["file", "out.bin"], "file: not a model but text"),
        (["SOURCE", "x" * 300], "File name too long"),
        (["x" * 300, "out.bin"], "not found"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(args, message, source, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"no model")
    (tmp_path / "folder.bin").mkdir()
    before = content(tmp_path)
    paths = [str(source if arg == "SOURCE" else tmp_path / arg) for arg in args[:2]]
    try:
        status = main([*paths, *args[2:]])
    except SystemExit as end:  # argparse's
        status = end.code
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert content(tmp_path) == before

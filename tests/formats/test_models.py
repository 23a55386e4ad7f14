"""load_model: every kind of model by one function, each with its tokenizer."""

import json
import os
import pickle
import re
import shutil
import sys

import numpy as np
import pytest
from helpers import TINY_MODEL

from npgpt import ArgumentError, FileError, GPT2Config, Parameters, write_checkpoint
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.data.tokenizer import BytesTokenizer, GPT2Tokenizer
from npgpt.formats import models
from npgpt.formats.huggingface import write_huggingface
from npgpt.formats.models import load_model
from npgpt.formats.registry import MODEL_FORMATS, write_model
from npgpt.wording import install_extra

BYTES = BytesTokenizer().description
GPT2 = GPT2Tokenizer().description
SMALL = GPT2Config(block_size=4, vocab_size=50257, n_layer=1, n_head=1, n_embd=2)


@pytest.fixture
def run(tmp_path):
    """A run's folder, and a function that adds a checkpoint whose weights are all of one value."""

    def add(step, val_loss, value, tokenizer=BYTES):
        folder = tmp_path / "run" / "checkpoints" / f"step_{step:08d}"
        folder.mkdir(parents=True)
        params = Parameters(GPT2Config(4, 257, 1, 1, 2))
        params.flat[:] = value
        write_checkpoint(folder / "model.bin", params)
        if tokenizer:
            write_tokenizer(folder / "model.bin", tokenizer)
        state = {"step": step, "updates": step, "val_loss": val_loss}
        (folder / "state.json").write_text(json.dumps(state))

    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run", add


def test_an_llmc_file_with_and_without_a_tokenizer(params, tmp_path):
    loaded, tokenizer = load_model(TINY_MODEL)
    assert tokenizer is None
    np.testing.assert_array_equal(loaded.flat, params.flat)
    write_checkpoint(tmp_path / "m.bin", params)
    write_tokenizer(tmp_path / "m.bin", BYTES)
    loaded, tokenizer = load_model(str(tmp_path / "m.bin"))
    assert tokenizer == BYTES
    np.testing.assert_array_equal(loaded.flat, params.flat)


def test_a_hugging_face_folder_and_its_file(params, tmp_path):
    pytest.importorskip("safetensors")
    write_huggingface(tmp_path, params, BYTES)
    for where in (tmp_path, str(tmp_path / "model.safetensors")):
        loaded, tokenizer = load_model(where)
        assert tokenizer == BYTES
        np.testing.assert_array_equal(loaded.flat, params.flat)
    for name in ("model.tokenizer.json", "tokenizer.json"):
        (tmp_path / name).unlink()
    assert load_model(tmp_path)[1] is None


def test_gpt2s_vocabulary_goes_with_gpt2s_tokenizer(tmp_path):
    write_checkpoint(tmp_path / "m.bin", Parameters(SMALL))
    assert load_model(tmp_path / "m.bin")[1] == GPT2
    write_tokenizer(tmp_path / "m.bin", BYTES)  # what stands beside it counts
    assert load_model(tmp_path / "m.bin")[1] == BYTES


def test_a_published_name_is_fetched_even_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    params = Parameters.init(SMALL, seed=3)
    write_huggingface(tmp_path / "cache", params)
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "fetch", {"gpt2": tmp_path / "cache"}.get)
    loaded, tokenizer = load_model("gpt2")
    assert tokenizer == GPT2
    np.testing.assert_array_equal(loaded.flat, params.flat)
    with pytest.raises(FileError, match="gpt2: no model in this folder"):
        load_model("./gpt2")


def test_a_runs_model_is_the_one_of_the_lowest_validation_loss(run):
    folder, add = run
    add(10, None, 1.0)
    add(20, 2.5, 2.0)
    add(30, 2.25, 3.0)
    add(40, 2.75, 4.0)
    loaded, tokenizer = load_model(folder)
    assert loaded.flat[0] == 3.0 and tokenizer == BYTES


def test_a_runs_model_is_the_last_one_without_validation(run):
    folder, add = run
    add(20, None, 2.0)
    add(100, None, 3.0, tokenizer=None)
    loaded, tokenizer = load_model(str(folder))
    assert loaded.flat[0] == 3.0 and tokenizer is None


@pytest.mark.parametrize("vanishing", ["its state", "its model"])
def test_a_run_in_training_is_read_again_when_its_checkpoint_is_replaced(
    vanishing, run, monkeypatch
):
    folder, add = run
    add(20, None, 2.0)
    best_step = models.best_step

    def replaced_meanwhile(folder):
        monkeypatch.setattr(models, "best_step", best_step)
        step = best_step(folder)
        add(30, None, 3.0)
        shutil.rmtree(folder / "checkpoints" / "step_00000020")
        if vanishing == "its state":
            raise FileError("state.json: No such file or directory")
        return step

    monkeypatch.setattr(models, "best_step", replaced_meanwhile)
    assert load_model(folder)[0].flat[0] == 3.0


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    first, second = (Parameters(GPT2Config(4, 257, 1, 1, 2)) for _ in range(2))
    second.flat[:] = 2.0
    write_model(tmp_path / "m.bin", first, {"name": "chars", "characters": "ab"})
    llmc = MODEL_FORMATS["llm.c"]

    def read_and_replace(path, make_params):
        monkeypatch.setitem(MODEL_FORMATS, "llm.c", llmc)
        found = llmc.read(path, make_params)
        write_model(tmp_path / "m.bin", second, BYTES)
        return found

    monkeypatch.setitem(MODEL_FORMATS, "llm.c", llmc._replace(read=read_and_replace))
    loaded, description = load_model(tmp_path / "m.bin")
    assert (loaded.flat[0], description) in (
        (2.0, BYTES),
        (0.0, {"name": "chars", "characters": "ab"}),
    )


def test_a_damaged_state_leaves_the_other_checkpoints(run):
    folder, add = run
    add(20, 2.5, 2.0)
    add(30, 2.25, 3.0)
    (folder / "checkpoints" / "step_00000030" / "state.json").write_text("{")
    assert load_model(folder)[0].flat[0] == 2.0
    (folder / "checkpoints" / "step_00000020" / "state.json").write_text("{")
    with pytest.raises(FileError, match="not JSON"):
        load_model(folder)


def test_a_damaged_checkpoint_of_a_run_is_told(run):
    folder, add = run
    add(20, None, 2.0)
    os.truncate(folder / "checkpoints" / "step_00000020" / "model.bin", 1030)
    with pytest.raises(FileError, match="model.bin: truncated"):
        load_model(folder)


def test_pytorchs_files_are_told_with_what_converts_them(tmp_path):
    (tmp_path / "ckpt.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"model": [1] * 20}, protocol=2))
    for name in ("ckpt.pt", "old.pt"):
        with pytest.raises(
            FileError, match=f"{name}: not a model but a PyTorch file.*scripts/convert_nanogpt.py"
        ):
            load_model(tmp_path / name)


def test_a_run_without_a_checkpoint_is_one_sentence(run):
    with pytest.raises(FileError, match="run: the run has no checkpoint yet$"):
        load_model(run[0])


@pytest.mark.parametrize("where", ["nowhere", "gpt3", "", "tiny.bin/x"])
def test_what_is_no_model_is_one_sentence_with_what_would_be(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.bin").write_bytes(TINY_MODEL.read_bytes())
    with pytest.raises(FileError) as raised:
        load_model(where)
    message = str(raised.value)
    assert "not found; " in message or "no model in this folder; " in message
    assert "an llm.c .bin file, a run's folder" in message and "gpt2-xl" in message
    assert "\n" not in message


def test_a_damaged_tokenizer_or_file_is_one_sentence(params, tmp_path):
    (tmp_path / "m.bin").write_bytes(b"x" * 2000)
    with pytest.raises(FileError, match="m.bin: not a model but text"):
        load_model(tmp_path / "m.bin")
    write_checkpoint(tmp_path / "m.bin", params)
    (tmp_path / "m.tokenizer.json").write_text("{")
    with pytest.raises(FileError, match="m.tokenizer.json: not JSON"):
        load_model(tmp_path / "m.bin")


def test_a_missing_extra_is_told_before_a_download(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setattr(models, "fetch", lambda name: pytest.fail("it downloads"))
    with pytest.raises(ArgumentError, match=re.escape(install_extra("hf"))):
        load_model("gpt2")


def test_a_checkpoint_s_folder_is_refused_with_what_to_name(params, tmp_path):
    write_checkpoint(tmp_path / "model.bin", params)
    with pytest.raises(FileError, match="a checkpoint's folder: name the model.bin in it, or the"):
        load_model(tmp_path)


def test_a_token_file_is_no_model(tmp_path):
    write_tokens(tmp_path / "t.bin", [1, 2, 3])
    with pytest.raises(FileError, match="t.bin: not a model but a token file$"):
        load_model(tmp_path / "t.bin")

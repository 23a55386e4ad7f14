"""A checkpoint's folder: there and back, complete or absent, damage in one sentence."""

import json
import os

import numpy as np
import pytest

import npgpt
from npgpt.data.descriptions import read_tokenizer
from npgpt.data.tokenizer import BytesTokenizer
from npgpt.errors import FileError
from npgpt.formats import run_checkpoint
from npgpt.formats.run_checkpoint import load_checkpoint, save_checkpoint
from npgpt.model.optimizer import AdamW


@pytest.fixture
def model(params, rng):
    model = npgpt.GPT2(params.config, params=params, backend="numpy")
    tokens = rng.integers(0, 251, (2, 2, 8))
    for _ in range(2):
        model.forward_backward(*tokens)
        model.update(1e-3)
    model.tokenizer = BytesTokenizer()
    return model


STATE = {"step": 5, "val_loss": 1.5}


def state_of(model):
    """A trainer's state, as far as it is asked for here, of a model with its optimizer."""
    return {**STATE, **(model.optimizer or AdamW(model.backend)).state(model.config)}


def save_model(folder, model):
    """Save a model as a run does."""
    save_checkpoint(
        folder, model.params, model.tokenizer and model.tokenizer.description, state_of(model)
    )


def test_a_checkpoint_comes_back_bit_for_bit(model, tmp_path):
    folder = tmp_path / "step_00000005"
    save_model(folder, model)
    params, state = load_checkpoint(folder, AdamW.MOMENTS)
    m, v = state.pop("m"), state.pop("v")
    np.testing.assert_array_equal(params.flat, model.params.flat)
    np.testing.assert_array_equal(m.flat, model.optimizer.m.flat)
    np.testing.assert_array_equal(v.flat, model.optimizer.v.flat)
    assert np.any(m.flat) and np.any(v.flat)
    assert set(state.pop("crc32")) == {"model.bin", "state.bin"}
    assert state == {**STATE, "updates": 2}
    assert read_tokenizer(folder / "model.bin") == {"name": "bytes"}
    assert npgpt.read_checkpoint(folder / "model.bin").config == model.config
    assert os.listdir(tmp_path) == ["step_00000005"]


def test_before_the_first_update_the_moments_are_zeros(params, tmp_path):
    save_model(tmp_path / "c", npgpt.GPT2(params.config, params=params))
    _, state = load_checkpoint(tmp_path / "c", AdamW.MOMENTS)
    assert not state["m"].flat.any() and not state["v"].flat.any() and state["updates"] == 0


@pytest.mark.parametrize(
    "failing", ["write_checkpoint", "write_tokenizer", "write_moments", "sync"]
)
def test_what_fails_on_the_way_leaves_nothing(model, tmp_path, monkeypatch, failing):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_checkpoint, failing, full)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        save_model(tmp_path / "c", model)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_half_removed_is_not_a_checkpoint(model, tmp_path, monkeypatch):
    save_model(tmp_path / "step_00000005", model)
    monkeypatch.setattr(run_checkpoint.shutil, "rmtree", lambda *args, **kwargs: None)
    run_checkpoint.remove_checkpoint(tmp_path / "step_00000005")
    assert os.listdir(tmp_path) == ["step_00000005.partial"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def other_magic(path):
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def other_version(path):
    content = bytearray(path.read_bytes())
    content[4] = 9
    path.write_bytes(content)


def other_model(path):
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage, words",
    [
        (truncate, "state.bin: truncated"),
        (other_magic, "state.bin: not a training state"),
        (other_version, "state.bin: training state version 9 is not supported, only 1"),
        (other_model, "but model.bin has 70608"),
    ],
)
def test_damaged_moments_are_one_sentence(model, tmp_path, damage, words):
    save_model(tmp_path / "c", model)
    damage(tmp_path / "c" / "state.bin")
    with pytest.raises(FileError) as caught:
        load_checkpoint(tmp_path / "c", AdamW.MOMENTS)
    assert words in str(caught.value)


STEPS = [
    f'{{"step": {step}, "val_loss": {loss}}}'
    for step, loss in [
        ("-1", "null"), ("1.5", "null"), ("NaN", "null"), ("true", "null"),
        ("1" + 400 * "0", "null"), ("1" + 5000 * "0", "null"), ("1", "NaN"),
        ("1", "Infinity"), ("1", "{}"), ("1", "[2]"),
    ]
]  # fmt: skip
CHECKSUMS = [
    f'{{"step": 1, "val_loss": null, "crc32": {checksums}}}'
    for checksums in ("3", "0", '"model.bin"', "[]", "{}", '{"model.bin": "3e767053"}')
]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"step": 1}',
        '{"step": "1", "updates": 1}',
        "nul",
        "[" * 100_000,
        *STEPS,
        *CHECKSUMS,
    ],
)
def test_a_damaged_state_is_one_sentence(model, tmp_path, text):
    save_model(tmp_path / "c", model)
    (tmp_path / "c" / "state.json").write_text(text)
    with pytest.raises(FileError, match=r"state\.json: .*; there is no earlier checkpoint"):
        load_checkpoint(tmp_path / "c", AdamW.MOMENTS)
    assert json.loads(json.dumps(STATE)) == STATE


@pytest.mark.parametrize("name", ["model.bin", "state.bin"])
def test_a_flipped_bit_is_found_and_the_checkpoint_before_it_named(model, tmp_path, name):
    for step in (5, 10):
        save_model(tmp_path / "checkpoints" / f"step_{step:08d}", model)
    folder = tmp_path / "checkpoints" / "step_00000010"
    load_checkpoint(folder, AdamW.MOMENTS)
    content = bytearray((folder / name).read_bytes())
    content[-1001] ^= 1  # the lowest bit of a number's second byte: nothing else would notice it
    (folder / name).write_bytes(content)
    words = f"{name}: damaged: its CRC-32 is .* to continue from step_00000005"
    with pytest.raises(FileError, match=words):
        load_checkpoint(folder, AdamW.MOMENTS)


def test_a_checkpoint_of_before_there_were_checksums_is_read(model, tmp_path):
    save_model(tmp_path / "c", model)
    state = json.loads((tmp_path / "c" / "state.json").read_text())
    assert set(state.pop("crc32")) == {"model.bin", "state.bin"}
    (tmp_path / "c" / "state.json").write_text(json.dumps(state))
    load_checkpoint(tmp_path / "c", AdamW.MOMENTS)


def test_only_the_validation_loss_of_a_checkpoint_is_replaced(model, tmp_path):
    save_model(tmp_path / "c", model)
    before = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    state = run_checkpoint.read_state(tmp_path / "c")
    run_checkpoint.update_checkpoint(tmp_path / "c", {**state, "val_loss": 0.125})
    after = {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}
    assert run_checkpoint.read_state(tmp_path / "c") == {**state, "val_loss": 0.125}
    assert {name for name in after if after[name] != before[name]} == {"state.json"}
    load_checkpoint(tmp_path / "c", AdamW.MOMENTS)

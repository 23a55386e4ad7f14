"""Files of every version are still read: each folder has what npgpt wrote on that day.

`python tests/formats/test_compatibility.py FOLDER` writes one for the formats as they are. It is
for a format that has changed; what is committed is never written again.
"""

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import npgpt
from npgpt.data.descriptions import read_tokenizer, write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.evaluation.hellaswag import read_hellaswag
from npgpt.files import pack_header
from npgpt.formats.debug_state import DebugState, read_debug_state, write_debug_state
from npgpt.formats.models import load_model
from npgpt.formats.reference_losses import read_losses
from npgpt.formats.registry import write_model
from npgpt.formats.run_checkpoint import checkpoint_folder, load_checkpoint
from npgpt.training.curves import read_log

FILES = Path(__file__).parents[1] / "compatibility"
CONFIG = npgpt.GPT2Config(block_size=4, vocab_size=5, n_layer=2, n_head=1, n_embd=2)
COUNT = npgpt.Parameters(CONFIG).flat.size
VALUES = (np.arange(COUNT) % 64 / 64).astype("<f4")  # which bfloat16 holds exactly, too
CHARS = {"name": "chars", "characters": "ab\u00e9\n"}
IDS = [4, 0, 1, 2, 3, 4, 2, 2]
SETTINGS = {
    "n_layer": 1, "n_head": 1, "n_embd": 4, "B": 1, "T": 4, "seed": 3, "lr": 0.01,
    "schedule": "constant",
}  # fmt: skip


def params():
    made = npgpt.Parameters(CONFIG)
    made.flat[:] = VALUES
    return made


def write_all(folder):
    """Every file but those of other programs, each by npgpt's own writer."""
    folder.mkdir(parents=True)
    for version in (1, 3, 5):
        npgpt.write_checkpoint(folder / f"model_v{version}.bin", params(), version)
    write_tokenizer(folder / "model_v3.bin", CHARS)
    x, y = np.array([[[0, 1, 2]], [[1, 2, -1]]], "<i4")
    logits = np.linspace(0, 1, 15, dtype="<f4").reshape(1, 3, 5)
    state = DebugState(x, y, logits, np.float32(1.5), params())
    for version in (1, 2):
        write_debug_state(folder / f"state_v{version}.bin", state, version)
    for format in ("llmc", "int32"):
        write_tokens(folder / f"tokens_{format}.bin", IDS * 20, format)
        write_tokenizer(folder / f"tokens_{format}.bin", CHARS)
    write_model(folder / "hugging_face", params(), CHARS)
    npgpt.train(
        run=str(folder / "run"), train=str(folder / "tokens_llmc.bin"), steps=3,
        val=str(folder / "tokens_int32.bin"), val_every=2, checkpoint_every=2, **SETTINGS,
    )  # fmt: skip
    for name in ("lock", "loss.png", "samples", ".gitignore"):
        left = folder / "run" / name
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def write_others(folder):
    """Files of other programs: nanoGPT's, llm.c's, and PyTorch's losses."""
    (folder / "nanogpt").mkdir()
    (folder / "nanogpt" / "train.bin").write_bytes(np.array(IDS * 20, "<u2").tobytes())
    letters = CHARS["characters"] + "z"
    meta = {"vocab_size": 5, "itos": dict(enumerate(letters)), "stoi": {}}
    (folder / "nanogpt" / "meta.pkl").write_bytes(pickle.dumps(meta))
    losses = {"losses": [2.5, 1.25], "lr": 1e-4, "weight_decay": 0.1}
    (folder / "losses.json").write_text(json.dumps(losses))
    words = [0, 1, 4, 2, 1, 2, *[1, 3] * 4]
    words = [65535, 2 * (len(words) + 2), *words]
    header = pack_header(20240522, 1, 1, 2 * len(words))
    (folder / "hellaswag.bin").write_bytes(header + np.array(words, "<u2").tobytes())


@pytest.fixture(params=sorted(path.name for path in FILES.iterdir()))
def folder(request):
    return FILES / request.param


@pytest.mark.parametrize("version", [1, 3, 5])
def test_models(folder, version):
    loaded, description = load_model(folder / f"model_v{version}.bin")
    assert loaded.config == CONFIG and description == (CHARS if version == 3 else None)
    np.testing.assert_array_equal(loaded.flat, VALUES)


@pytest.mark.parametrize("version", [1, 2])
def test_debug_states(folder, version):
    state = read_debug_state(folder / f"state_v{version}.bin", params())
    assert (state.x.tolist(), state.y.tolist()) == ([[0, 1, 2]], [[1, 2, -1]])
    assert state.logits[0, 2, 4] == 1 and state.loss == 1.5
    np.testing.assert_array_equal(state.grads.flat, VALUES)


@pytest.mark.parametrize("name", ["tokens_llmc.bin", "tokens_int32.bin", "nanogpt/train.bin"])
def test_tokens(folder, name):
    tokens = open_tokens(folder / name)
    assert tokens[0 : len(tokens)].tolist() == IDS * 20
    letters = CHARS["characters"] + ("z" if "nanogpt" in name else "")
    assert tokens.tokenizer_description == {"name": "chars", "characters": letters}


def test_a_hugging_face_folder(folder):
    pytest.importorskip("safetensors")
    loaded, description = load_model(folder / "hugging_face")
    assert loaded.config == CONFIG and description == CHARS
    np.testing.assert_array_equal(loaded.flat, VALUES)


def test_losses_and_hellaswag(folder):
    losses = read_losses(folder / "losses.json")
    assert (losses.losses, losses.lr, losses.weight_decay) == ([2.5, 1.25], 1e-4, 0.1)
    (example,) = read_hellaswag(folder / "hellaswag.bin", 5)
    assert (example.context.tolist(), example.label) == ([1, 2], 1)
    assert [part.tolist() for part in example.completions] == [[3]] * 4


def test_a_run_goes_on(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    losses, val_losses = read_log(run)
    assert sorted(losses) == [1, 2, 3] and sorted(val_losses) == [0, 2, 3]
    before, state = load_checkpoint(checkpoint_folder(run, 3), ("m", "v"))
    assert state["updates"] == 3 and np.abs(state["m"].flat).max() > 0
    assert read_tokenizer(checkpoint_folder(run, 3) / "model.bin") == CHARS
    data = {"train": str(folder / "tokens_llmc.bin"), "val": str(folder / "tokens_int32.bin")}
    went_on = npgpt.train(resume=run, steps=5, **data)
    whole = npgpt.train(run=str(tmp_path / "whole"), steps=5, val_every=2, **data, **SETTINGS)
    np.testing.assert_allclose(went_on.model.params.flat, whole.model.params.flat, atol=1e-5)
    assert np.abs(went_on.model.params.flat - before.flat).max() > 1e-3


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
    write_others(Path(sys.argv[1]))

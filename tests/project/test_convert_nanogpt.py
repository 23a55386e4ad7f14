"""scripts/convert_nanogpt.py: nanoGPT's ckpt.pt becomes a model that says the same."""

import math
import pickle

import numpy as np
import pytest
from helpers import ROOT, run_here

from npgpt import GPT2
from npgpt.formats.models import load_model

pytestmark = [pytest.mark.slow, pytest.mark.reference]

SCRIPT = ROOT / "scripts" / "convert_nanogpt.py"
ARGS = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 6, "vocab_size": 5, "bias": False}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs the extra `reference`")


def state_dict(torch, bias):
    """The tensors of nanoGPT's GPT, by nanoGPT's names."""
    C, generator = ARGS["n_embd"], torch.Generator().manual_seed(1)
    shapes = {
        "ln_1": (C,), "attn.c_attn": (3 * C, C), "attn.c_proj": (C, C),
        "ln_2": (C,), "mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C),
    }  # fmt: skip
    shapes = {f"h.{i}.{name}": shape for i in range(2) for name, shape in shapes.items()}
    shapes |= {"wte": (5, C), "wpe": (6, C), "ln_f": (C,)}
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"transformer.{name}.weight"] = torch.randn(shape, generator=generator) / 3
        if bias and not name.startswith("w"):
            tensors[f"transformer.{name}.bias"] = torch.randn(shape[:1], generator=generator) / 3
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    return tensors


def logits(torch, tensors, tokens):
    """nanoGPT's forward pass."""
    F = torch.nn.functional

    def weights(name):
        return tensors[f"transformer.{name}.weight"], tensors.get(f"transformer.{name}.bias")

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], *weights(name), 1e-5)

    x = weights("wte")[0][tokens] + weights("wpe")[0][: tokens.shape[1]]
    for i in range(2):
        qkv = F.linear(norm(x, f"h.{i}.ln_1"), *weights(f"h.{i}.attn.c_attn"))
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in qkv.split(8, -1))
        att = (q @ k.transpose(-2, -1) / math.sqrt(4)).masked_fill(
            torch.ones(len(x[0]), len(x[0])).triu(1).bool(), -math.inf
        )
        y = (att.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, *weights(f"h.{i}.attn.c_proj"))
        hidden = F.gelu(F.linear(norm(x, f"h.{i}.ln_2"), *weights(f"h.{i}.mlp.c_fc")))
        x = x + F.linear(hidden, *weights(f"h.{i}.mlp.c_proj"))
    return norm(x, "ln_f") @ tensors["lm_head.weight"].T


@pytest.mark.parametrize("bias", [False, True])
def test_the_model_says_the_same(bias, torch, tmp_path):
    tensors = state_dict(torch, bias)
    prefix = "_orig_mod." if bias else ""
    model = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({"model": model, "model_args": {**ARGS, "bias": bias}}, tmp_path / "ckpt.pt")
    letters = {"vocab_size": 5, "itos": dict(enumerate("abcde")), "stoi": {}}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(letters))
    run_here(SCRIPT, tmp_path / "ckpt.pt", tmp_path / "m.bin", "--meta", tmp_path / "meta.pkl")
    params, description = load_model(tmp_path / "m.bin")
    assert description == {"name": "chars", "characters": "abcde"}
    tokens = np.array([[0, 1, 2, 3, 4, 0], [4, 4, 1, 0, 2, 3]])
    found = GPT2(params.config, params=params, backend="numpy").forward(tokens)
    expected = logits(torch, tensors, torch.tensor(tokens)).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)  # of GELU's two forms


def test_what_it_cannot_take_is_one_sentence(torch, tmp_path):
    target = tmp_path / "m.bin"
    for content, said in (
        ({"model": state_dict(torch, False), "model_args": {}}, "model_args are damaged"),
        ({"model": {}, "model_args": ARGS}, "no tensor transformer.wte.weight"),
        ({"model": {"x": torch.ones(1)} | state_dict(torch, False), "model_args": ARGS}, "holds x"),
        ({"model": state_dict(torch, False), "model_args": {**ARGS, "n_embd": 4}}, "of shape"),
        ({"weights": 1}, "not nanoGPT's ckpt.pt"),
    ):
        torch.save(content, tmp_path / "ckpt.pt")
        message = run_here(SCRIPT, tmp_path / "ckpt.pt", target, status=2)
        assert said in message and message.count("\n") == 1, message
        assert not target.exists()
    assert "No such file" in run_here(SCRIPT, tmp_path / "none.pt", target, status=2)
    for name in ("other.pkl", "meta.pkl"):
        message = run_here(
            SCRIPT, tmp_path / "ckpt.pt", target, "--meta", tmp_path / name, status=2
        )
        assert name in message and message.count("\n") == 1

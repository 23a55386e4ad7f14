"""npgpt's trainer beside PyTorch: the same weights and batches, every loss within 2e-3.

PyTorch has its own model, autograd, AdamW with two groups, clipping and schedule.
"""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, highest

import npgpt
from npgpt import prepro_tinyshakespeare
from npgpt.core.parameters import MATRICES
from npgpt.data.batches import make_batches
from npgpt.data.token_files import open_tokens
from npgpt.data.training_data import TrainingData
from npgpt.training.settings import make_settings
from npgpt.training.trainer import Trainer

pytestmark = [pytest.mark.reference, pytest.mark.slow]
SCRIPT = ROOT / "scripts" / "train_gpt2.py"


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs the extra `reference`")


def shakespeare(folder, shared_data, monkeypatch, tokenizer):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    text = str(shared_data / "tinyshakespeare.txt")
    assert prepro_tinyshakespeare.main(
        ["--text", text, "--tokenizer", tokenizer, "--out", str(folder)]
    ) == 0  # fmt: skip
    return open_tokens(folder / "tiny_shakespeare_train.bin")


class PyTorch:
    """The reference's model with npgpt's weights, and a training step by the same settings."""

    def __init__(self, torch, params, s):
        spec = importlib.util.spec_from_file_location("reference", SCRIPT)
        reference = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(reference)
        self.torch, self.s = torch, s
        c = params.config
        self.model = reference.GPT(SimpleNamespace(**vars(c)))
        groups = {True: [], False: []}
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                ours, layer = name_of(name)
                array = getattr(params, ours)
                weight.copy_(torch.from_numpy(array if layer is None else array[layer]))
                groups[ours in MATRICES or s.decayed_params == "all"].append(weight)
        self.optimizer = torch.optim.AdamW(
            [{"params": groups[True]}, {"params": groups[False], "weight_decay": 0.0}],
            lr=s.lr, betas=(s.beta1, s.beta2), eps=s.eps, weight_decay=s.weight_decay,
        )  # fmt: skip
        schedules = torch.optim.lr_scheduler
        rise = schedules.LinearLR(self.optimizer, 1 / s.warmup, 1.0, s.warmup - 1)
        fall = schedules.CosineAnnealingLR(
            self.optimizer, s.steps - s.warmup, eta_min=s.lr * s.final_lr_fraction
        )
        self.schedule = schedules.SequentialLR(self.optimizer, [rise, fall], [s.warmup])

    def update(self, batches, accumulation):
        """One update -> its loss and the norm of its gradients."""
        self.optimizer.zero_grad()
        total = 0.0
        for _ in range(accumulation):
            x, y = (self.torch.from_numpy(ids) for ids in batches.next())
            logits = self.model(x).flatten(0, 1)
            loss = self.torch.nn.functional.cross_entropy(logits, y.flatten()) / accumulation
            loss.backward()
            total += loss.item()
        norm = self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.s.clip)
        self.optimizer.step()
        self.schedule.step()
        return total, norm.item()


def name_of(name):
    """PyTorch's name of a parameter -> npgpt's, and its layer or None."""
    *path, kind = name.split(".")
    letter = kind[0]
    if path[0] in ("wte", "wpe"):
        return path[0], None
    if path[0] == "ln_f":
        return f"lnf{letter}", None
    layers = {
        "ln_1": "ln1", "attn.c_attn": "qkv", "attn.c_proj": "attproj",
        "ln_2": "ln2", "mlp.c_fc": "fc", "mlp.c_proj": "fcproj",
    }  # fmt: skip
    return layers[".".join(path[2:])] + letter, int(path[1])


def lockstep(torch, model, tokens, s):
    """Train both -> the losses (steps, 2) and the norms (steps, 2) of both."""
    ours = Trainer(model, s, TrainingData(s.train, s.val))
    theirs = PyTorch(torch, model.params, s)
    batches = make_batches(tokens, s.B, s.T, s.order, s.seed)
    losses, norms = [], []
    for step in range(s.steps):
        update = ours.update()
        loss, norm = theirs.update(batches, ours.grad_accum_steps)
        losses.append((update.loss, loss))
        norms.append((update.norm, norm))
        print(f"step {step + 1}: {update.loss:.6f} {loss:.6f} {abs(update.loss - loss):.1e}")
    return np.array(losses), np.array(norms)


SMALL = {
    "B": 8, "T": 64, "lr": 1e-3, "warmup": 20, "final_lr_fraction": 0.1, "clip": 0.5,
}  # fmt: skip


def scratch(tokens, **sizes):
    config = npgpt.GPT2Config(block_size=64, vocab_size=1 + highest(tokens), **sizes)
    return npgpt.GPT2(config, seed=0)


def test_200_steps_from_scratch_on_characters(torch, tmp_path, shared_data, monkeypatch):
    tokens = shakespeare(tmp_path, shared_data, monkeypatch, "chars")
    model = scratch(tokens, n_layer=2, n_head=2, n_embd=64)
    settings = {**SMALL, "train": tokens.paths[0], "B": 4, "steps": 200, "lr": 3e-3}
    losses, norms = lockstep(torch, model, tokens, make_settings(settings))
    assert losses[-1, 0] < losses[0, 0] - 1.0
    assert (norms[:, 1] > 0.5).any()  # so that it was clipped
    assert np.abs(losses[:, 0] - losses[:, 1]).max() < 2e-3
    np.testing.assert_allclose(norms[:, 0], norms[:, 1], rtol=2e-2)


@pytest.mark.parametrize("change", [{"beta2": 0.99}, {"decayed_params": "all"}, {"clip": 5.0}])
def test_a_wrong_setting_is_seen(torch, tmp_path, shared_data, monkeypatch, change):
    tokens = shakespeare(tmp_path, shared_data, monkeypatch, "chars")
    model = scratch(tokens, n_layer=1, n_head=2, n_embd=32)
    values = {**SMALL, "train": tokens.paths[0], "steps": 30, "weight_decay": 1.0, "lr": 1e-2}
    theirs = PyTorch(torch, model.params, make_settings({**values, **change}))
    s = make_settings(values)
    ours = Trainer(model, s, TrainingData(s.train, s.val))
    batches = make_batches(tokens, 8, 64, "shuffle", 0)
    losses = [(ours.update().loss, theirs.update(batches, 1)[0]) for _ in range(30)]
    assert max(abs(a - b) for a, b in losses) > 2e-3


@pytest.mark.full_size
def test_50_steps_of_fine_tuning_gpt2_124m(torch, tmp_path, shared_data, monkeypatch):
    tokens = shakespeare(tmp_path, shared_data, monkeypatch, "gpt2")
    model = npgpt.GPT2(npgpt.GPT2Config(), seed=0)
    settings = {
        **SMALL, "train": tokens.paths[0], "B": 4, "T": 64, "total_batch": 512, "steps": 50,
        "warmup": 10, "lr": 1e-4,
    }  # fmt: skip
    losses, norms = lockstep(torch, model, tokens, make_settings({**settings, "clip": 1.0}))
    assert losses[-1, 0] < losses[0, 0] - 1.0
    assert (norms[:, 1] > 1.0).any()
    assert np.abs(losses[:, 0] - losses[:, 1]).max() < 2e-3

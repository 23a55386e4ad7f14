"""Every entry of every table can be used from end to end, by the name that it has there."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import TINY_MODEL, write_hellaswag

from npgpt import GPT2, GPT2Config, evaluate, sample, test_gpt2, write_checkpoint
from npgpt.convert import convert
from npgpt.core.precision import PRECISIONS
from npgpt.data.batches import ORDERS, make_batches
from npgpt.data.descriptions import tokenizer_from_description, write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.data.tokenizer import TOKENIZERS, get_tokenizer
from npgpt.evaluation.hellaswag import Example
from npgpt.evaluation.registry import EVALUATIONS
from npgpt.formats.models import load_model
from npgpt.formats.registry import MODEL_FORMATS, detect_format, target_format, write_model
from npgpt.kernels.products.precision import has_bf16_hardware
from npgpt.model.backend import BACKENDS
from npgpt.model.optimizer import DECAYED_PARAMS, OPTIMIZERS
from npgpt.model.quantization import WEIGHT_FORMATS
from npgpt.train_gpt2 import main as train_main
from npgpt.training.schedules import SCHEDULES

CONFIG = GPT2Config(block_size=16, vocab_size=257, n_layer=1, n_head=2, n_embd=32)
BYTES = {"name": "bytes"}


@pytest.fixture
def folder(tmp_path, rng):
    """A folder with a model of bytes, and tokens in documents of nine letters and an =."""
    write_checkpoint(tmp_path / "model.bin", GPT2(CONFIG, seed=1, backend="numpy").params)
    letters = rng.integers(97, 123, 400)
    letters[::10], letters[5::10] = 256, ord("=")
    write_tokens(tmp_path / "tokens.bin", letters)
    for name in ("model.bin", "tokens.bin"):
        write_tokenizer(tmp_path / name, BYTES)
    (tmp_path / "text.txt").write_text("To be, or not to be")
    example = Example(np.array([1, 2]), [np.array([i, 3]) for i in range(4)], 0)
    write_hellaswag(tmp_path / "hellaswag.bin", [example])
    return tmp_path


def evaluated(folder, capsys, *options):
    """The loss that npgpt eval prints of the model in the folder."""
    command = ["--model", str(folder / "model.bin"), "--tokens", str(folder / "tokens.bin")]
    assert evaluate.main([*command, *options]) == 0
    return float(capsys.readouterr().out.split()[1])


def sampled(folder, capsys, *options):
    """The text that npgpt sample prints."""
    command = ["--model", str(folder / "model.bin"), "--greedy", "--tokens", "8"]
    assert sample.main([*command, "--prompt", "ab", *options]) == 0
    return capsys.readouterr().out


def trained(folder, *options):
    """The model of a run of three steps by npgpt train."""
    run = folder / "run"
    sizes = "--n-layer 1 --n-head 2 --n-embd 16 -B 2 -T 8 --steps 3 --lr 0.01".split()
    data = ["--train", str(folder / "tokens.bin"), "--val", str(folder / "tokens.bin")]
    assert train_main(["--run", str(run), *data, *sizes, *options]) == 0
    model = GPT2.from_pretrained(run)
    assert np.isfinite(model.params.flat).all()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", PRECISIONS)
def test_each_precision(name, folder, capsys):
    if PRECISIONS[name].n_terms and not has_bf16_hardware():
        pytest.skip(f"needs {PRECISIONS[name].needs}")
    exact = evaluated(folder, capsys)
    assert evaluated(folder, capsys, "--precision", name) == pytest.approx(exact, rel=1e-2)
    trained(folder, "--precision", name)
    assert set(PRECISIONS[name].tolerances) == {"logits", "loss", "grads", "losses"}
    assert test_gpt2.main(["--model", str(TINY_MODEL), "--precision", name, "--steps", "2"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHT_FORMATS)
def test_each_format_of_weights(name, folder, capsys):
    model = GPT2.from_pretrained(folder / "model.bin", weight_format=name)
    text = model.generate([[256, *b"ab"]], 8, temperature=0)[0, 1:].tolist()
    expected = b"".join(get_tokenizer("bytes").decode_bytes([token]) for token in text)
    shown = sampled(folder, capsys, "--weight-format", name)
    assert shown == expected.decode("utf-8", "replace") + "\n"
    exact = evaluated(folder, capsys)
    loss = evaluated(folder, capsys, "--weight-format", name)
    assert loss == pytest.approx(exact, rel=1e-2) and (loss == exact) == (name == "fp32")


@pytest.mark.parametrize("name", BACKENDS)
def test_each_backend(name, folder, capsys):
    assert evaluated(folder, capsys, "--backend", name) == pytest.approx(
        evaluated(folder, capsys), rel=1e-6
    )
    assert sampled(folder, capsys, "--backend", name) == sampled(folder, capsys)


@pytest.mark.parametrize("name", ORDERS)
def test_each_order(name, folder):
    assert ORDERS[name].name == name and ORDERS[name].help
    model = trained(folder, "--order", name)
    other = "random" if name != "random" else "sequence"
    run = folder / "run"
    run.rename(folder / "first")
    assert not np.array_equal(trained(folder, "--order", other).params.flat, model.params.flat)
    batches = make_batches(np_tokens([256, 1, 2, 3, 4, 5] * 9), 2, 4, name, eot=256)
    assert type(batches) is ORDERS[name] and batches.next()[0].shape == (2, 4)


def np_tokens(ids):
    """As Tokens, of an array."""
    ids = np.array(ids)
    return type("A", (SimpleNamespace,), {"__len__": lambda self: len(ids)})(
        read=lambda start, count: ids[start : start + count], tokenizer_description=None
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule(name, folder):
    trained(folder, "--schedule", name, "--warmup", "1", "--min-lr", "0.001")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decayed", DECAYED_PARAMS)
def test_each_optimizer(name, decayed, folder):
    trained(folder, "--optimizer", name, "--decayed-params", decayed)
    assert train_main(["--resume", str(folder / "run"), "--steps", "5"]) == 0


class SGD:
    """An optimizer without moments, as small as one can be."""

    MOMENTS = ()

    @classmethod
    def from_settings(cls, backend, s):
        return cls()

    def update(self, params, grads, lr, grad_scale=1.0):
        params.flat -= lr * grad_scale * grads.flat

    def state(self, config):
        return {}

    def restore(self, state):
        pass

    @staticmethod
    def state_bytes(config):
        return 0


def test_a_second_optimizer_trains_and_resumes_and_the_model_goes_on_with_adamw(
    folder, monkeypatch
):
    monkeypatch.setitem(OPTIMIZERS, "sgd", SGD)
    straight = trained(folder, "--optimizer", "sgd", "--steps", "4").params.flat.copy()
    (folder / "run").rename(folder / "straight")
    trained(folder, "--optimizer", "sgd", "--steps", "2", "--schedule", "constant")
    (folder / "run").rename(folder / "two")
    assert train_main(["--resume", str(folder / "two"), "--steps", "4"]) == 0
    resumed = GPT2.from_pretrained(folder / "two")
    assert not np.array_equal(resumed.params.flat, straight)  # another schedule
    trained(folder, "--optimizer", "sgd", "--steps", "4", "--schedule", "constant")
    np.testing.assert_array_equal(
        GPT2.from_pretrained(folder / "run").params.flat, resumed.params.flat
    )
    resumed.optimizer = SGD()  # as the trainer leaves it
    resumed.forward_backward([[1, 2]], [[2, 3]])
    resumed.update(1e-3)
    assert resumed.optimizer.updates == 1


@pytest.mark.parametrize("name", MODEL_FORMATS)
def test_each_format_of_models(name, folder):
    if name == "Hugging Face":
        pytest.importorskip("safetensors")
    target = folder / {"llm.c": "out.bin", "Hugging Face": "out"}[name]
    assert target_format(target) == name and detect_format(folder / "none") is None
    expected, _ = load_model(folder / "model.bin")
    for version in (None, *MODEL_FORMATS[name].versions):
        config, path = convert(folder / "model.bin", target, version)
        assert config == CONFIG and path == MODEL_FORMATS[name].files(target)[0]
        assert all(path.exists() for path in MODEL_FORMATS[name].files(target))
        assert detect_format(target) == name
        params, description = load_model(target)
        assert description == BYTES
        rounding = 2**-8 if version == 5 else 0
        np.testing.assert_allclose(params.flat, expected.flat, rtol=rounding)
        assert write_model(target, expected, None, version) == name
        assert load_model(target)[1] is None


DATA = {
    "tokens": "tokens.bin", "text": "text.txt", "hellaswag": "hellaswag.bin",
    "answers": "tokens.bin",
}  # fmt: skip
OPTIONS = {
    "B": ["-B", "2"], "T": ["-T", "4"], "batches": ["--batches", "1"], "after": ["--after", "="],
}  # fmt: skip


@pytest.mark.parametrize("name", EVALUATIONS)
def test_each_evaluation_and_each_option_that_it_takes(name, folder, capsys):
    command = ["--model", str(folder / "model.bin"), f"--{name}", str(folder / DATA[name])]
    assert evaluate.main(command) == 0
    usual = capsys.readouterr().out
    assert usual
    for option, words in OPTIONS.items():
        taken = option in EVALUATIONS[name].takes
        assert evaluate.main([*command, *words]) == (0 if taken else 2), option
        shown = capsys.readouterr()
        assert bool(shown.out) == taken
        assert (f"does not go with --{name}" in shown.err) == (not taken)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_tokenizer(name, shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer(name)
    assert tokenizer.name == name
    assert tokenizer.decode(tokenizer.encode("naïve ∑")) == "naïve ∑"
    assert 0 <= tokenizer.eot < tokenizer.vocab_size
    again = tokenizer_from_description(tokenizer.description)
    assert type(again) is type(tokenizer) and again.encode("a b") == tokenizer.encode("a b")

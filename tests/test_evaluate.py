"""The evaluation: every token counts once, the numbers are the logits', and bad input."""

import io
import math
import re
import sys

import numpy as np
import pytest
from helpers import TINY_MODEL, token_losses, write_hellaswag

from npgpt import GPT2, ArgumentError, FileError, GPT2Config, write_checkpoint
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.data.tokenizer import TOKENIZERS, BytesTokenizer, CharsTokenizer, GPT2Tokenizer
from npgpt.evaluate import main
from npgpt.evaluation.hellaswag import Example, count_correct
from npgpt.evaluation.loss import bits_per_byte, count_bytes, mean_loss, token_bytes

V = 251  # of the tiny model
TEXT = "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer"
CONFIG = GPT2Config(block_size=16, vocab_size=257, n_layer=1, n_head=2, n_embd=8)


@pytest.fixture
def model(params):
    return GPT2(params.config, params=params, backend="numpy")


@pytest.fixture
def tokens(rng):
    return rng.integers(0, V, 100)


def expected_loss(model, tokens, T):
    """The mean of all losses, window by window, by the logits."""
    losses = []
    for start in range(0, len(tokens) - 1, T):
        window = tokens[start : start + T + 1]
        losses += token_losses(model, window[:1], window[1:]).tolist()
    assert len(losses) == len(tokens) - 1
    return np.mean(losses)


@pytest.mark.parametrize("T", [1, 9, 33, 40])  # 99 targets: a rest of 0, 0, 0 and 19
def test_the_mean_is_over_all_tokens_but_the_first_whatever_B_is(T, model, tokens):
    expected = expected_loss(model, tokens, T)
    for B in (1, 2, 3, 200):
        assert mean_loss(model, tokens, B, T) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 40, 41, 42, 81, 82])
def test_any_number_of_tokens_will_do(count, model, tokens):
    loss = mean_loss(model, tokens[:count], 2, 40)
    assert loss == pytest.approx(expected_loss(model, tokens[:count], 40), rel=1e-6)
    one_more = mean_loss(model, tokens[: count + 1], 2, 40)
    assert abs(loss - one_more) > 1e-4  # the last one counts


def test_files_count_as_the_array_of_all_their_tokens(model, tokens, tmp_path):
    write_tokens(tmp_path / "a.bin", tokens[:30])
    write_tokens(tmp_path / "b.bin", tokens[30:], "int32")
    files = open_tokens(str(tmp_path / "*.bin"))
    assert mean_loss(model, files, 2, 20) == mean_loss(model, tokens, 2, 20)


def test_batches_are_the_first_ones(model, tokens):
    first = mean_loss(model, tokens, 2, 16, batches=2)
    assert first == mean_loss(model, tokens[:65], 2, 16)
    assert first != mean_loss(model, tokens, 2, 16)
    assert mean_loss(model, tokens, 2, 16, batches=99) == mean_loss(model, tokens, 2, 16)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_tokens_are_one_sentence(count, model, tokens):
    with pytest.raises(ArgumentError, match=f"at least 2, to predict one, not {count}"):
        mean_loss(model, tokens[:count], 4, 40)


def shown(capsys):
    """The numbers that the program has printed, by name, without their commas."""
    lines = capsys.readouterr().out.splitlines()
    return {name: value for name, value in (line.replace(",", "").split()[:2] for line in lines)}


@pytest.mark.slow
@pytest.mark.usefixtures("bf16_hardware")
def test_the_program_computes_in_bf16(bytes_model, tokens, tmp_path, capsys):
    write_tokens(tmp_path / "tokens.bin", tokens)
    options = ["--model", str(bytes_model), "--tokens", str(tmp_path / "tokens.bin")]
    losses = []
    for precision in ("fp32", "bf16x3", "bf16"):
        assert main([*options, "--precision", precision]) == 0
        losses.append(float(shown(capsys)["loss"]))
    assert abs(losses[1] - losses[0]) <= 1e-6 < abs(losses[2] - losses[0]) < 0.1


def test_the_program_shows_loss_perplexity_and_speed(model, tokens, tmp_path, capsys):
    write_tokens(tmp_path / "a.bin", tokens[:30])
    write_tokens(tmp_path / "b.bin", tokens[30:])
    command = ["--model", str(TINY_MODEL), "--backend", "numpy"]
    parts = [str(tmp_path / name) for name in ("a.bin", "b.bin")]
    assert main([*command, "--tokens", *parts]) == 0
    numbers = shown(capsys)
    loss = mean_loss(model, tokens, 4, 40)
    assert float(numbers["loss"]) == pytest.approx(loss, abs=1e-6)
    assert float(numbers["perplexity"]) == pytest.approx(math.exp(loss), rel=1e-4)
    assert numbers["tokens"] == "99"
    assert float(numbers["tokens/s"]) > 0

    assert main([*command, "--tokens", *parts, "-B", "2", "-T", "16", "--batches", "2"]) == 0
    numbers = shown(capsys)
    assert float(numbers["loss"]) == pytest.approx(mean_loss(model, tokens, 2, 16, 2), abs=1e-6)
    assert numbers["tokens"] == "64"


def test_bits_per_byte_are_all_bits_by_all_bytes_of_text_that_tokens_stand_for():
    text = "naïve ∑ and\n"
    tokenizer = CharsTokenizer("".join(sorted(set(text))))
    tokens = np.array([tokenizer.eot, *tokenizer.encode(text), tokenizer.eot])
    lengths = token_bytes(tokenizer, tokenizer.vocab_size + 2)  # a model may have more tokens
    assert lengths[tokenizer.eot :].tolist() == [0, 0, 0]
    n_bytes = count_bytes(tokens, 0, len(tokens), lengths)
    assert n_bytes == len(text.encode()) > len(text)
    assert count_bytes(tokens, 1, 4, lengths) == len("naï".encode())
    assert bits_per_byte(math.log(2), 10, 5) == pytest.approx(2)
    # a model that knows nothing but the number of bytes takes 8 bits for each
    assert bits_per_byte(math.log(256), 7, 7) == pytest.approx(8)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_bytes_are_counted_in_chunks(chunk, tokens, monkeypatch):
    monkeypatch.setattr("npgpt.evaluation.loss.CHUNK", chunk)
    lengths = np.arange(V)
    assert count_bytes(tokens, 3, 98, lengths) == tokens[3:98].sum()


def test_the_program_shows_bits_per_byte_where_a_tokenizer_is_known(tokens, tmp_path, capsys):
    write_tokens(tmp_path / "a.bin", tokens)
    command = ["--model", str(TINY_MODEL), "--tokens", str(tmp_path / "a.bin"), "-T", "16"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "bits/byte   unknown: no tokenizer says what text the tokens are (--tokenizer)\n" in out
    for more in ([], ["--batches", "1"]):
        assert main([*command, *more, "--tokenizer", "bytes"]) == 0
        numbers = shown(capsys)  # each token is a byte
        loss = float(numbers["loss"])
        assert float(numbers["bits/byte"]) == pytest.approx(loss / math.log(2), abs=2e-6)


def test_a_tokenizer_whose_files_are_nowhere_is_told_and_the_loss_is_there(
    tokens, tmp_path, capsys, monkeypatch
):
    def nowhere(self, tokens):
        raise FileError("the gpt2 tokenizer's files cannot be downloaded")

    monkeypatch.setattr(GPT2Tokenizer, "decode_bytes", nowhere)
    write_tokens(tmp_path / "a.bin", tokens)
    command = ["--model", str(TINY_MODEL), "--tokens", str(tmp_path / "a.bin")]
    assert main([*command, "--tokenizer", "gpt2"]) == 0
    out = capsys.readouterr().out
    assert "bits/byte   unknown: the gpt2 tokenizer's files cannot be downloaded\n" in out
    assert "loss        7.0" in out


def test_both_backends_show_the_same(tokens, tmp_path, monkeypatch, capsys):
    used = []

    def recording(*args, backend, **options):
        used.append(backend)
        return GPT2(*args, backend=backend, **options)

    monkeypatch.setattr("npgpt.evaluate.GPT2", recording)
    write_tokens(tmp_path / "a.bin", tokens)
    command = ["--model", str(TINY_MODEL), "--tokens", str(tmp_path / "a.bin")]
    losses = []
    for options in ([], ["--backend", "numba"], ["--backend", "numpy"]):
        assert main([*command, *options]) == 0
        losses.append(float(shown(capsys)["loss"]))
    assert used == ["numba", "numba", "numpy"]
    assert losses[0] == losses[1] == pytest.approx(losses[2], abs=2e-6)


@pytest.fixture
def bytes_model(tmp_path):
    """A model of bytes, without its tokenizer beside it, a text and its tokens."""
    model = GPT2(CONFIG, seed=1, backend="numpy")
    write_checkpoint(tmp_path / "model.bin", model.params)
    (tmp_path / "text.txt").write_text(TEXT)
    write_tokens(tmp_path / "tokens.bin", BytesTokenizer().encode(TEXT))
    return tmp_path / "model.bin"


def evaluate(model, *options):
    return main(["--model", str(model), "--backend", "numpy", *map(str, options)])


def test_a_text_counts_as_its_tokens(bytes_model, tmp_path, capsys):
    assert evaluate(bytes_model, "--tokens", tmp_path / "tokens.bin") == 0
    expected = shown(capsys)
    text = ["--text", tmp_path / "text.txt"]
    assert evaluate(bytes_model, *text, "--tokenizer", "bytes") == 0
    named = shown(capsys)
    write_tokenizer(bytes_model, {"name": "bytes"})
    assert evaluate(bytes_model, *text) == 0
    beside = shown(capsys)
    assert named["loss"] == beside["loss"] == expected["loss"]
    assert named["tokens"] == str(len(TEXT) - 1)


def described(name):
    """The description of the tokenizer called so, or of these characters."""
    return {"name": name} if name in TOKENIZERS else {"name": "chars", "characters": name}


@pytest.mark.parametrize(
    ("models", "tokens", "options", "message"),
    [
        ("bytes", "gpt2", [], "tokens.bin: the tokenizer is gpt2, but {model} has bytes"),
        ("bytes", "ab", [], "tokens.bin: the tokenizer is chars, but {model} has bytes"),
        ("ab", "ba", [], "is chars, but {model} has chars of other characters"),
        ("bytes", None, ["--tokenizer", "gpt2"], "--tokenizer: the tokenizer is gpt2, but {model}"),
        (None, "bytes", ["--tokenizer", "gpt2"], "the tokenizer is bytes, but {model} has gpt2"),
    ],
)
@pytest.mark.parametrize("hellaswag", [False, True])
def test_another_tokenizer_is_one_sentence(
    models, tokens, options, message, hellaswag, bytes_model, tmp_path, capsys
):
    path = tmp_path / "tokens.bin"
    if hellaswag:
        example = Example(np.array([1, 2]), [np.array([i, 3]) for i in range(4)], 0)
        write_hellaswag(path, [example])
    for file, name in ((bytes_model, models), (path, tokens)):
        if name:
            write_tokenizer(file, described(name))
    option = "--hellaswag" if hellaswag else "--tokens"
    assert evaluate(bytes_model, option, path, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message.format(model=bytes_model) in error
    if models and tokens:  # and with the same one there is none
        write_tokenizer(path, described(models))
        assert evaluate(bytes_model, option, path) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "tokens.bin", "-B", "0"], "--batch-size must be at least 1, not 0"),
        (["--tokens", "tokens.bin", "-T", "-3"], "--seq-len must be at least 1, not -3"),
        (["--tokens", "tokens.bin", "-T", "17"], "-T must be at most the block_size of 16, not 17"),
        (["--tokens", "tokens.bin", "--batches", "0"], "--batches must be at least 1, not 0"),
        (["--tokens", "none.bin"], "none.bin: No such file or directory"),
        (["--tokens", "high.bin"], "high.bin: token 257 is outside the model's vocabulary of 257"),
        (["--tokens", "tokens.bin", "high.bin"], "error: high.bin: token 257"),
        (["--tokens", "one.bin"], "tokens must be at least 2, to predict one, not 1"),
        (["--text", "text.txt"], "model.bin has no tokenizer: pass one with --tokenizer"),
        (["--text", "none.txt", "--tokenizer", "bytes"], "none.txt: No such file"),
        (["--text", "empty.txt", "--tokenizer", "bytes"], "at least 2, to predict one, not 0"),
        (["--text", "one.bin", "--tokenizer", "bytes"], "one.bin: not UTF-8 text (byte 0)"),
        (["--tokenizer", "bytes"], "--tokens --text --hellaswag --answers is required"),
        (["--hellaswag", "h.bin", "-T", "8"], "--seq-len does not go with --hellaswag"),
        (["--hellaswag", "h.bin", "-B", "8"], "--batch-size does not go with --hellaswag"),
        (["--hellaswag", "tokens.bin"], "tokens.bin: not a HellaSwag file (magic 20240520"),
        (["--hellaswag", "h.bin"], "h.bin: example 0 of 1: token 257"),
        (["--text", "text.txt", "--tokens", "tokens.bin"], "not allowed with"),
    ],
)
def test_bad_input_is_one_sentence(options, message, bytes_model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tokens("high.bin", [1, 257, 2])
    (tmp_path / "one.bin").write_bytes(b"\xff\0")  # a raw uint16
    (tmp_path / "empty.txt").touch()
    write_hellaswag(tmp_path / "h.bin", [Example(np.array([1]), [np.array([257])] * 4, 0)])
    try:
        assert evaluate(bytes_model, *options) == 2
    except SystemExit as end:  # of the parser
        assert end.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_text_beyond_the_models_vocabulary_is_one_sentence(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\U0010ffff")  # its first byte is 244, which the model has
    options = ["--text", tmp_path / "text.txt", "--tokenizer", "bytes"]
    assert evaluate(TINY_MODEL, *options) == 0
    config = GPT2Config(block_size=16, vocab_size=244, n_layer=1, n_head=2, n_embd=8)
    write_checkpoint(tmp_path / "small.bin", GPT2(config, backend="numpy").params)
    capsys.readouterr()
    assert evaluate(tmp_path / "small.bin", *options) == 2
    message = "text.txt: token 244 is outside the model's vocabulary of 244"
    assert message in capsys.readouterr().err


@pytest.fixture
def taught(tmp_path):
    """A model of bytes that knows one alphabet, its path, and examples that ask for it."""
    model = GPT2(CONFIG, seed=0, backend="numpy")
    alphabet = np.arange(20)
    for _ in range(80):
        model.forward_backward(np.stack([alphabet[:16], alphabet[3:19]]),
                               np.stack([alphabet[1:17], alphabet[4:20]]))  # fmt: skip
        model.update(1e-2)
    write_checkpoint(tmp_path / "taught.bin", model.params)
    examples = []
    for i in range(8):
        completions = [np.array(c) for c in ([30, 31], [9, 5], [40], [1, 1, 1])]
        completions[i % 4] = alphabet[i + 3 : i + 6]
        examples.append(Example(alphabet[i : i + 3], completions, i % 4))
    return model, tmp_path / "taught.bin", examples


def test_the_accuracy_is_the_share_of_right_choices(taught, tmp_path, capsys):
    model, path, examples = taught
    assert count_correct(model, examples) == 8
    for example in examples[2:]:
        example.label = (example.label + 1) % 4
    assert count_correct(model, examples) == 2
    file = write_hellaswag(tmp_path / "h.bin", examples)
    assert evaluate(path, "--hellaswag", file) == 0
    assert capsys.readouterr().out == "accuracy  0.2500\nexamples  8\n"
    assert evaluate(path, "--hellaswag", file, "--batches", "4") == 0
    assert capsys.readouterr().out == "accuracy  0.5000\nexamples  4\n"


def test_examples_that_had_to_be_cut_are_counted(taught, tmp_path, capsys):
    _, path, examples = taught
    examples[0].context = np.zeros(14, int)  # 14 + 3 tokens: the block_size and the last target
    examples[1].context = np.zeros(15, int)
    assert evaluate(path, "--hellaswag", write_hellaswag(tmp_path / "h.bin", examples)) == 0
    cut = capsys.readouterr().out.splitlines()[2]
    assert re.fullmatch("cut +1, which do not fit into the block_size of 16", cut)


def test_a_model_that_has_diverged_shows_nan(bytes_model, tmp_path, capsys):
    model = GPT2(CONFIG, backend="numpy")
    model.params.lnfw[:] = 3e38
    model.params.wte[:] *= 1e3
    write_checkpoint(bytes_model, model.params)
    assert evaluate(bytes_model, "--tokens", tmp_path / "tokens.bin") == 0
    numbers = shown(capsys)
    assert numbers["loss"] == numbers["perplexity"] == "nan"


def test_the_help_names_the_program(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith("usage: python -m npgpt.evaluate ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_bar_shows_on_a_terminal_alone(stream, model, tokens, taught, monkeypatch):
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    mean_loss(model, tokens, 2, 16)
    count_correct(taught[0], taught[2])
    assert ("loss" in stderr.getvalue()) == (stream is Terminal)
    assert ("hellaswag" in stderr.getvalue()) == (stream is Terminal)

"""Exact answers: what counts as one, against what the model writes."""

import numpy as np
import pytest

import npgpt
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.data.tokenizer import CharsTokenizer
from npgpt.errors import ArgumentError
from npgpt.evaluate import main
from npgpt.evaluation.answers import count_exact

TOKENIZER = CharsTokenizer("=ab\n")
TEXTS = ["a=b\n", "ab=ba\n", "b=a\n", "ba=ab\n", "aab\n", "a=bb\n", "b=aa\n"]


@pytest.fixture
def model():
    """A model that has half learnt to turn words round."""
    config = npgpt.GPT2Config(block_size=8, vocab_size=5, n_layer=1, n_head=2, n_embd=16)
    model = npgpt.GPT2(config, seed=1, backend="numpy")
    rows = np.full((7, 9), TOKENIZER.eot)
    for row, text in zip(rows, TEXTS, strict=True):
        row[1 : len(text) + 1] = TOKENIZER.encode(text)
    for _ in range(60):
        model.forward_backward(rows[:4, :-1], rows[:4, 1:])
        model.update(1e-2)
    return model


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "words.bin"
    write_tokens(path, [t for text in TEXTS for t in (TOKENIZER.eot, *TOKENIZER.encode(text))])
    write_tokenizer(path, TOKENIZER.description)
    return path


def test_an_answer_is_exact_when_the_model_writes_it(model, path):
    right = 0
    for text in TEXTS:
        if "=" in text:
            question, answer = text.split("=")
            prompt = [TOKENIZER.eot, *TOKENIZER.encode(question + "=")]
            out = model.generate(np.array([prompt]), len(answer), temperature=0)
            right += TOKENIZER.decode(out[0, len(prompt) :]) == answer
    assert 0 < right < 6
    for B in (1, 2, 64):
        assert count_exact(model, open_tokens(path), TOKENIZER.encode("=")[0], B) == (right, 6)


def test_the_program_prints_it(model, path, tmp_path, capsys):
    npgpt.write_checkpoint(tmp_path / "m.bin", model.params)
    args = ["--model", str(tmp_path / "m.bin"), "--answers", str(path), "--backend", "numpy"]
    assert main([*args, "-B", "2"]) == 0
    out = capsys.readouterr().out
    correct, _ = count_exact(model, open_tokens(path), TOKENIZER.encode("=")[0])
    assert out == f"exact answers  {correct / 6:.4f}\ndocuments      6\n"
    assert main([*args, "--after", "b"]) == 0
    assert "documents      7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, words",
    [
        (["--after", "ab"], "--after must encode to one token, but 'ab' encodes to 2"),
        (["--after", ""], "--after must encode to one token, but '' encodes to 0"),
        (["--after", "?"], "the text has '?', which is not among"),
        (["--batches", "2"], "--batches does not go with --answers"),
        (["-T", "8"], "--seq-len does not go with --answers"),
    ],
)
def test_bad_options_are_one_sentence(model, path, tmp_path, options, words, capsys):
    npgpt.write_checkpoint(tmp_path / "m.bin", model.params)
    assert main(["--model", str(tmp_path / "m.bin"), "--answers", str(path), *options]) == 2
    assert words in capsys.readouterr().err


def test_after_goes_with_answers_alone(path, capsys):
    assert main(["--model", "x", "--tokens", str(path), "--after", "="]) == 2
    assert capsys.readouterr().err == "error: --after does not go with --tokens\n"


def test_documents_without_a_question_are_one_sentence(model, path):
    with pytest.raises(ArgumentError, match="no document contains the token 77"):
        count_exact(model, open_tokens(path), 77)

"""A run's data: its streams, the tokenizer of both, and what does not fit a model."""

import pytest

from npgpt import ArgumentError, FileError, GPT2Config
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.data.training_data import TrainingData

BYTES, CHARS = {"name": "bytes"}, {"name": "chars", "characters": "ab"}
CONFIG = GPT2Config(block_size=8, vocab_size=5, n_layer=1, n_head=1, n_embd=4)


@pytest.fixture
def path(tmp_path):
    """Writes a token file -> its path."""

    def write(name, ids, description=None):
        write_tokens(tmp_path / name, ids)
        if description:
            write_tokenizer(tmp_path / name, description)
        return str(tmp_path / name)

    return write


def test_the_streams_are_those_of_the_files(path):
    data = TrainingData(path("a.bin", [1, 2, 3]), path("b.bin", [4]))
    assert data.train.read(0, 3).tolist() == [1, 2, 3] and data.val.read(0, 1).tolist() == [4]
    assert TrainingData(path("a.bin", [1, 2, 3])).val is None
    with pytest.raises(ArgumentError, match="train must name a token file"):
        TrainingData("")


@pytest.mark.parametrize(
    "train, val, found", [(BYTES, None, BYTES), (None, BYTES, BYTES), (None, None, None)]
)
def test_the_tokenizer_is_that_of_the_files_that_have_one(train, val, found, path):
    data = TrainingData(path("a.bin", [1], train), path("b.bin", [1], val))
    assert data.tokenizer_description == found
    ours = data.reconcile_tokenizers("m", None)
    assert (ours and ours.description) == found
    assert data.reconcile_tokenizers("m", BYTES).description == BYTES


def test_tokenizers_that_differ_are_refused(path):
    a, b = path("a.bin", [1], BYTES), path("b.bin", [1], CHARS)
    with pytest.raises(ArgumentError, match=r"--val .*b.bin: the tokenizer is chars, but .*a.bin"):
        TrainingData(a, b)
    with pytest.raises(ArgumentError, match=r"--train .*a.bin: the tokenizer is bytes, but m has"):
        TrainingData(a).reconcile_tokenizers("m", CHARS)


def test_what_does_not_fit_the_model_is_refused(path):
    data = TrainingData(path("a.bin", [1, 4]), path("b.bin", [0, 5]))
    with pytest.raises(FileError, match="b.bin: token 5 is outside the model's vocabulary of 5"):
        data.check_fits(CONFIG, 8)
    data = TrainingData(path("a.bin", [1, 4]))
    data.check_fits(CONFIG, 8)
    with pytest.raises(ArgumentError, match="T must be at most the model's block_size of 8, not 9"):
        data.check_fits(CONFIG, 9)

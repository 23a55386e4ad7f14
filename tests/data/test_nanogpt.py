"""nanoGPT's meta.pkl gives the characters, and nothing in it is executed."""

import pickle

import numpy as np
import pytest

from npgpt.data.descriptions import write_tokenizer
from npgpt.data.nanogpt import read_meta
from npgpt.data.token_files import open_tokens
from npgpt.errors import FileError

CHARACTERS = "\n !abcü伊"
ITOS = dict(enumerate(CHARACTERS))
META = {"vocab_size": 8, "itos": ITOS, "stoi": {c: i for i, c in ITOS.items()}}


@pytest.fixture
def train(tmp_path):
    np.array([1, 2, 3, 4, 5, 6, 7, 0, 3] * 9, "<u2").tofile(tmp_path / "train.bin")
    return tmp_path / "train.bin"


@pytest.mark.parametrize("protocol", range(6))
def test_the_characters_come_back(train, protocol):
    train.with_name("meta.pkl").write_bytes(pickle.dumps(META, protocol))
    if protocol == 0:  # its dict is another instruction's, and nanoGPT never wrote it
        with pytest.raises(FileError, match="the pickle's instruction DICT is not executed"):
            open_tokens(train)
        return
    description = {"name": "chars", "characters": CHARACTERS}
    assert open_tokens(train).tokenizer_description == description
    write_tokenizer(train, {"name": "bytes"})  # npgpt's own description comes first
    assert open_tokens(train).tokenizer_description == {"name": "bytes"}


def test_without_it_there_is_none(train):
    assert read_meta(train) is None and open_tokens(train).tokenizer_description is None


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_is_executed(train, tmp_path):
    content = pickle.dumps({**META, "evil": Evil(str(tmp_path / "made"))})
    train.with_name("meta.pkl").write_bytes(content)
    with pytest.raises(FileError, match="meta.pkl: not nanoGPT's characters: .* is not executed"):
        open_tokens(train)
    assert not (tmp_path / "made").exists()
    pickle.loads(content)["evil"].close()
    assert (tmp_path / "made").exists()  # what pickle would have done


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04.",
        b"\x80\x04u.",
        b"\x80\x04}",
        b"\x80\x04h\x05.",
        pickle.dumps(META)[:-9],
        pickle.dumps([1, 2]),
        pickle.dumps({}),
        pickle.dumps({**META, "vocab_size": 9}),
        pickle.dumps({**META, "itos": {0: "a", 2: "b"}}),
        pickle.dumps({"vocab_size": 2, "itos": {0: "a", 1: "a"}}),
        pickle.dumps({"vocab_size": 1, "itos": {0: "ab"}}),
        pickle.dumps({"vocab_size": 1, "itos": {0: 5}}),
    ],
)
def test_another_pickle_is_one_sentence(train, content):
    train.with_name("meta.pkl").write_bytes(content)
    with pytest.raises(FileError, match="meta.pkl: not nanoGPT's characters: "):
        open_tokens(train)

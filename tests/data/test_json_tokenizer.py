"""Byte-level BPE by the content of a tokenizer.json: tokens, bytes, and what it refuses."""

import copy
import re
import sys

import pytest

from npgpt import ArgumentError
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.json_tokenizer import BYTES, LETTERS, JSONTokenizer, from_letters, to_letters
from npgpt.formats.huggingface_tokenizer import bpe_content
from npgpt.wording import install_extra

VOCAB = {LETTERS[i]: i for i in range(256)} | {"he": 256, "l" + "l": 257, "he" + "ll": 258}
CONTENT = bpe_content(VOCAB, ["h e", "l l", "he ll"], {"<|user|>": 259, "<|end|>": 262})


@pytest.fixture
def tokenizer():
    return JSONTokenizer(CONTENT, 262)


def test_each_byte_has_a_letter_of_its_own():
    assert len(BYTES) == 256 and LETTERS[ord("a")] == "a" and LETTERS[ord(" ")] == "\u0120"
    assert from_letters(to_letters(bytes(range(256)))) == bytes(range(256))


def test_its_sizes_and_description(tokenizer):
    assert (tokenizer.vocab_size, tokenizer.eot) == (263, 262)
    assert tokenizer.description == {"name": "json", "eot": 262, "content": CONTENT}
    assert tokenizer_from_description(tokenizer.description).description == tokenizer.description


def test_tokens_become_their_bytes(tokenizer):
    assert tokenizer.decode([258, ord("o"), 259, 260, 262]) == "hello<|user|><|end|>"
    assert tokenizer.decode_bytes([0xC3]) + tokenizer.decode_bytes([0xA9]) == "\u00e9".encode()
    with pytest.raises(ArgumentError, match="from 0 to 262, not 263"):
        tokenizer.decode([263])


def test_text_becomes_tokens_and_added_tokens_count(tokenizer):
    pytest.importorskip("tokenizers")
    assert tokenizer.encode("hello") == [258, ord("o")]
    assert tokenizer.encode("he<|user|>\u00e9") == [256, 259, 0xC3, 0xA9]
    for text in ("\ud800", "a\udcff"):
        with pytest.raises(ArgumentError, match="not a character"):
            tokenizer.encode(text)


def test_without_the_package_it_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ArgumentError, match=re.escape(f"tokenizers: {install_extra('hf')}")):
        tokenizer.encode("a")


def test_what_the_package_refuses_is_one_sentence():
    pytest.importorskip("tokenizers")
    content = copy.deepcopy(CONTENT)
    content["model"]["merges"] = ["no such"]
    with pytest.raises(ArgumentError, match="the package tokenizers cannot read it: "):
        JSONTokenizer(content, 262).encode("a")


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("model", "type"), "WordPiece", "only byte-level BPE"),
        (("decoder", "type"), "Metaspace", "only byte-level BPE"),
        (("decoder",), None, "not a tokenizer.json"),
        (("model", "vocab"), [], "not a tokenizer.json"),
        (("model", "vocab"), {"a": "b"}, "must be integers"),
        (("model", "vocab"), {"a": -1}, "must be integers of at least 0"),
        (("model", "vocab"), {"a": 2**40}, "must be integers"),
        (("added_tokens",), [{"id": 1}], "it has no 'content'"),
        (("added_tokens",), [3], "not a tokenizer.json"),
        (("added_tokens",), [], "eot must be one of the tokenizer's tokens, not 262"),
    ],
)
def test_what_it_cannot_read_is_one_sentence(where, value, said):
    content = copy.deepcopy(CONTENT)
    place = content
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ArgumentError, match=said):
        JSONTokenizer(content, 262)


@pytest.mark.parametrize("content", [None, [], {}, {"model": 1}, "text"])
def test_what_is_no_content_is_one_sentence(content):
    with pytest.raises(ArgumentError, match="not a tokenizer.json"):
        JSONTokenizer(content, 0)


def test_it_neither_cuts_nor_pads_nor_drops(tokenizer):
    pytest.importorskip("tokenizers")
    content = copy.deepcopy(CONTENT)
    content["truncation"] = {"max_length": 2, "strategy": "LongestFirst", "stride": 0,
                             "direction": "Right"}  # fmt: skip
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_id": 0, "pad_type_id": 0,
        "pad_to_multiple_of": None, "pad_token": "a",
    }  # fmt: skip
    content["model"]["dropout"] = 0.9
    text = "hello hello hello"
    assert JSONTokenizer(content, 262).encode(text) == tokenizer.encode(text)


def test_half_a_character_in_any_field_is_refused():
    content = {**CONTENT, "normalizer": "\ud800"}
    with pytest.raises(ArgumentError, match="not a tokenizer.json"):
        JSONTokenizer(content, 262)

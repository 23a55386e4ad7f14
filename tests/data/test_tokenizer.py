"""Tokenizers: to tokens and back, and one sentence where GPT-2's files cannot be downloaded."""

import functools
import json
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from npgpt import ArgumentError, FileError, get_tokenizer
from npgpt.data import tokenizer as tokenizer_module
from npgpt.data.descriptions import read_tokenizer, tokenizer_from_description, write_tokenizer
from npgpt.data.tokenizer import CharsTokenizer

TEXTS = ["", "Hello, world!\n", "naïve café 🙂 ƒ", "<|endoftext|>", "a" * 300, "\0\t\r\n"]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_come_back(text):
    tokenizer = get_tokenizer("bytes")
    tokens = tokenizer.encode(text)
    assert len(tokens) == len(text.encode())
    assert all(0 <= token < 256 for token in tokens)
    assert tokenizer.decode(tokens) == text


def test_bytes_end_of_text_is_a_token_of_its_own():
    tokenizer = get_tokenizer("bytes")
    assert tokenizer.eot == 256
    assert tokenizer.vocab_size == 257
    assert tokenizer.decode([104, 105, 256, 255]) == "hi<|endoftext|>�"


def test_gpt2_is_gpt2s(shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.vocab_size == 50257
    assert tokenizer.decode([50256]) == "<|endoftext|>"
    assert tokenizer.eot not in tokenizer.encode("<|endoftext|>")
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_gpt2s_own_regex_finds_what_tiktokens_does(shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    import tiktoken

    draw = random.Random(0)
    blanks = [" ", "  ", "\n", "\t", "\x1c", "\x85", "\xa0", "\u2003", "\u200b", "\u3000"]
    words = [
        "a",
        "Zoë",
        "12",
        "½",
        "'",
        "'s",
        "'re",
        "'LL",
        "’ve",
        ".",
        "--",
        "e\u0301",
        "🙂",
        "日本",
    ]
    texts = ["".join(draw.choices(words + blanks, k=draw.randrange(12))) for _ in range(5000)]
    points = [*range(0xD800), *draw.sample(range(0xE000, 0x110000), 20_000)]
    texts.append("".join(f" {c}{c}a{c} 1{c}'{c}s" for c in map(chr, points)))
    texts.append((shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8"))
    theirs, ours = tiktoken.get_encoding("gpt2"), tokenizer_module.gpt2_encoding()
    assert ours.encode_ordinary_batch(texts) == theirs.encode_ordinary_batch(texts)


def test_several_threads_load_gpt2s_files_once(monkeypatch):
    made = []

    def load():
        time.sleep(0.1)
        made.append(1)

    monkeypatch.setattr(tokenizer_module, "gpt2_encoding", functools.cache(load))
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda i: get_tokenizer("gpt2")._encoding, range(4))]
    assert len(made) == 1


@pytest.mark.parametrize("name", ["gpt2", "bytes", "chars"])
def test_pieces_of_documents_are_encoded_with_end_of_text_in_front(name, shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = CharsTokenizer("".join(sorted({*"".join(TEXTS)}))) if name == "chars" else None
    tokenizer = tokenizer or get_tokenizer(name)
    plain = [text for text in TEXTS if text != "<|endoftext|>"]
    for texts in (plain, TEXTS):  # which is text like any other
        expected = [token for text in texts for token in [tokenizer.eot, *tokenizer.encode(text)]]
        tokens = tokenizer.encode_pieces([(text, True) for text in texts])
        assert tokens.tolist() == expected and tokens.dtype == np.int32
    assert tokenizer.encode_pieces([]).tolist() == []


def test_end_of_text_across_pieces_is_text(shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    pieces = ["a <|endof", "text|> b"]
    tokens = tokenizer.encode_pieces([(pieces[0], True), (pieces[1], False)])
    expected = [tokenizer.eot, *tokenizer.encode(pieces[0]), *tokenizer.encode(pieces[1])]
    assert tokens.tolist() == expected


@pytest.mark.parametrize("before", ["a", "a<|endoftext|>"])
def test_a_million_blanks_are_encoded(before, shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    parts = [before, "\n" * 1_200_000, " b"]
    expected = [token for part in parts for token in tokenizer.encode(part)]
    assert tokenizer.encode("".join(parts)) == expected
    tokens = tokenizer.encode_pieces([("".join(parts), True)])
    assert tokens.tolist() == [tokenizer.eot, *expected]


def test_long_blanks_are_found_in_a_time_that_grows_with_the_text_alone():
    text = "a" + " " * 90_000 + "b" * 90_000  # a try from each blank on takes 12 s
    begin = time.process_time()
    assert tokenizer_module.LONG_BLANKS.split(text) == [text]
    assert time.process_time() - begin < 1


def test_where_long_blanks_are_cut_no_token_differs(shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    blanks = [" ", "\n", "\t", "\x1c", "\x85", "\xa0", "\u2003", "\u200b", "\u3000"]
    draw, texts = random.Random(0), []
    for _ in range(3000):
        words = draw.choices(["a", "1", "'s", ".", *blanks], k=draw.randrange(1, 5))
        texts.append("".join(draw.choices(blanks, k=draw.randrange(8))).join(words))
    expected = [tokenizer.encode(text) for text in texts]
    short = tokenizer_module.LONG_BLANKS.pattern.replace(str(tokenizer_module.LONG_BLANK), "3")
    monkeypatch.setattr(tokenizer_module, "LONG_BLANKS", re.compile(short))
    monkeypatch.setattr(tokenizer_module, "LONG_BLANK", 3)
    assert [tokenizer.encode(text) for text in texts] == expected
    assert any(len(re.split(short, text)) > 1 for text in texts)


def test_an_unknown_name_is_refused():
    with pytest.raises(ArgumentError, match="tokenizer must be one of gpt2, bytes, not 'bpe'"):
        get_tokenizer("bpe")


def test_gpt2_without_network_and_cache_is_one_sentence_on_what_to_do(tmp_path):
    """In a process of its own: tiktoken keeps what it has loaded."""
    code = (
        "import npgpt, sys\n"
        "tokenizer = npgpt.get_tokenizer('gpt2')\n"
        "assert tokenizer.description == {'name': 'gpt2'} and tokenizer.eot == 50256\n"
        "assert 'tiktoken' not in sys.modules\n"
        "try: tokenizer.encode('a')\n"
        "except npgpt.FileError as error: print(error)"
    )
    dead = "http://127.0.0.1:9"  # nobody listens there
    env = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "https_proxy": dead, "no_proxy": ""}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "the gpt2 tokenizer's files cannot be downloaded" in run.stdout, run.stderr
    assert "TIKTOKEN_CACHE_DIR" in run.stdout
    assert len(run.stdout.splitlines()) == 1


def test_gpt2s_files_of_other_bytes_are_not_used(tmp_path, monkeypatch):
    import tiktoken.load

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        tokenizer_module, "gpt2_encoding", tokenizer_module.gpt2_encoding.__wrapped__
    )
    monkeypatch.setattr(tiktoken.load, "read_file", lambda path: b"#version: 0.2\n")
    (tmp_path / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee").write_bytes(b"wrong")
    with pytest.raises(FileError, match="cannot be downloaded"):
        get_tokenizer("gpt2").encode("a")


def test_gpt2s_tokens_are_split_characters_too(shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    tokens = tokenizer.encode("🙂")
    assert len(tokens) > 1
    assert (
        tokenizer.decode_bytes(tokens[:1])
        == "🙂".encode()[: len(tokenizer.decode_bytes(tokens[:1]))]
    )
    assert b"".join(tokenizer.decode_bytes([token]) for token in tokens) == "🙂".encode()
    assert tokenizer.decode(np.array(tokens)) == "🙂"


def test_characters_come_back():
    tokenizer = CharsTokenizer("ab🙂\n")
    assert (tokenizer.name, tokenizer.vocab_size, tokenizer.eot) == ("chars", 5, 4)
    assert tokenizer.encode("b🙂a\n") == [1, 2, 0, 3]
    assert tokenizer.decode([1, 2, 0, 3, 4]) == "b🙂a\n<|endoftext|>"
    assert tokenizer.decode_bytes(np.array([2])) == "🙂".encode()


def test_an_unknown_character_is_named():
    with pytest.raises(
        ArgumentError, match="the text has 'é', which is not among the tokenizer's 2 char"
    ):
        CharsTokenizer("ab").encode("abé")


@pytest.mark.parametrize(
    ("characters", "message"),
    [
        ("", "characters must be a text, not empty"),
        (None, "characters must be a text, not empty"),
        (["a"], "characters must be a text, not list"),
        ("aba", "characters must differ, but 'a' occurs twice"),
        ("a\ud800", r"characters must not be surrogates, like '\\ud800'"),
    ],
)
def test_characters_that_make_no_tokenizer_are_refused(characters, message):
    with pytest.raises(ArgumentError, match=message):
        CharsTokenizer(characters)


@pytest.mark.parametrize("token", [-1, 5, 2**40])
def test_tokens_that_the_tokenizer_has_not_are_refused(token):
    with pytest.raises(ArgumentError, match=f"chars must be from 0 to 4, not {token}"):
        CharsTokenizer("abcd").decode([0, token])


def test_no_text_is_one_sentence():
    with pytest.raises(ArgumentError, match=r"the text has '\\udcff', which is not a character"):
        get_tokenizer("bytes").encode("a\udcff")


@pytest.mark.parametrize("tokenizer", [get_tokenizer("bytes"), CharsTokenizer('a"\n🙂')])
def test_a_tokenizer_is_made_of_its_description_again(tokenizer, tmp_path):
    write_tokenizer(tmp_path / "a.b.bin", tokenizer.description)
    assert [path.name for path in tmp_path.iterdir()] == ["a.b.tokenizer.json"]
    description = read_tokenizer(tmp_path / "a.b.bin")
    assert description == tokenizer.description
    again = tokenizer_from_description(description)
    assert again.encode("a\n🙂") == tokenizer.encode("a\n🙂")
    assert again.vocab_size == tokenizer.vocab_size


def test_a_file_without_a_description_has_none(tmp_path):
    assert read_tokenizer(tmp_path / "a.bin") is None


NONSENSE = [
    None,
    [],
    "gpt2",
    {},
    {"name": "bpe"},
    {"name": ["gpt2"]},
    {"name": "chars"},
    {"name": "chars", "characters": ""},
    {"name": "chars", "characters": ["a", "b"]},
    {"name": "gpt2", "characters": "ab"},
    {"name": "chars", "characters": "ab", "eot": 0},
]


@pytest.mark.parametrize("description", NONSENSE)
def test_a_description_of_no_tokenizer_is_refused(description, tmp_path):
    with pytest.raises(ArgumentError, match="description must be|characters must be"):
        tokenizer_from_description(description)
    with pytest.raises(ArgumentError):
        write_tokenizer(tmp_path / "a.bin", description)
    assert read_tokenizer(tmp_path / "a.bin") is None
    (tmp_path / "a.tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(FileError, match="a.tokenizer.json: (not a tokenizer's descr|must hold)"):
        read_tokenizer(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"{}", b"[" * 100_000, b'{"name": "gpt2"} x', b"1" * 5000],
)
def test_a_damaged_description_is_one_sentence(content, tmp_path):
    (tmp_path / "a.tokenizer.json").write_bytes(content)
    with pytest.raises(FileError, match="a.tokenizer.json: not (JSON|a tokenizer)") as raised:
        read_tokenizer(tmp_path / "a.bin")
    assert len(str(raised.value)) < 500 and "\n" not in str(raised.value)


def test_a_huge_description_is_not_read(tmp_path):
    with open(tmp_path / "a.tokenizer.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="1,099,511,627,776 bytes, but 16,777,216 are the most"):
        read_tokenizer(tmp_path / "a.bin")


def test_a_long_nonsense_is_not_shown_whole():
    with pytest.raises(ArgumentError) as raised:
        tokenizer_from_description("x" * 10_000)
    assert len(str(raised.value)) < 400

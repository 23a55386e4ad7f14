"""Tokenizers: to tokens and back, and one sentence where GPT-2's files cannot be had."""

import os
import subprocess
import sys

import pytest

from npgpt import ArgumentError, FileError, get_tokenizer

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


def test_an_unknown_name_is_refused():
    with pytest.raises(ArgumentError, match="tokenizer must be one of gpt2, bytes, not 'bpe'"):
        get_tokenizer("bpe")


def test_gpt2_without_network_and_cache_is_one_sentence_on_what_to_do(tmp_path):
    """In a process of its own: tiktoken keeps what it has loaded."""
    code = "import npgpt\ntry: npgpt.get_tokenizer('gpt2')\nexcept npgpt.FileError as e: print(e)"
    dead = "http://127.0.0.1:9"  # nobody listens there
    env = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path), "https_proxy": dead, "no_proxy": ""}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert "the gpt2 tokenizer's files cannot be had" in run.stdout, run.stderr
    assert "TIKTOKEN_CACHE_DIR" in run.stdout
    assert len(run.stdout.splitlines()) == 1


def test_gpt2s_files_of_other_bytes_are_not_used(tmp_path, monkeypatch):
    import tiktoken.load
    import tiktoken.registry

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setattr(tiktoken.load, "read_file", lambda path: b"#version: 0.2\n")
    (tmp_path / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee").write_bytes(b"wrong")
    with pytest.raises(FileError, match="cannot be had"):
        get_tokenizer("gpt2")

"""The tokenizer of a Hugging Face folder: its own files count, and go along when it is written."""

import json
import os

import pytest

from npgpt import FileError, GPT2Config, Parameters
from npgpt.data import tokenizer
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.json_tokenizer import LETTERS, to_letters
from npgpt.data.tokenizer import BytesTokenizer, CharsTokenizer, GPT2Tokenizer
from npgpt.formats.huggingface import write_huggingface
from npgpt.formats.huggingface_tokenizer import (
    bpe_content,
    is_gpt2,
    merges_of,
    read_folder_tokenizer,
    tokenizer_json,
)
from npgpt.formats.models import load_model
from npgpt.formats.registry import write_model

GPT2 = GPT2Tokenizer().description
CONFIG = GPT2Config(block_size=4, vocab_size=50257, n_layer=1, n_head=1, n_embd=2)
OWN = bpe_content(
    {LETTERS[i]: i for i in range(256)} | {"ab": 256}, ["a b"], {"<|endoftext|>": 257, "<x>": 258}
)
TEXTS = ["", "Hello, World! 123", "caf\u00e9 \U0001f600\n\n  two  spaces\ttab", "abba<x>"]


@pytest.fixture(scope="session")
def gpt2_content():
    try:
        return tokenizer_json(GPT2)
    except FileError:
        pytest.skip("GPT-2's tokenizer files can neither be found nor downloaded")


def put(folder, **contents):
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / {"merges": "merges.txt"}.get(name, f"{name}.json")).write_text(text, "utf-8")
    return folder


def test_gpt2s_own_files_are_npgpts_gpt2(gpt2_content, tmp_path):
    assert is_gpt2(gpt2_content)
    assert read_folder_tokenizer(put(tmp_path, tokenizer=gpt2_content), 50256) == GPT2
    model = gpt2_content["model"]
    merges = "\n".join(["#version: 0.2", *model["merges"], ""])
    older = put(tmp_path / "older", vocab=model["vocab"], merges=merges)
    assert read_folder_tokenizer(older, 50256) == GPT2


@pytest.mark.parametrize("change", ["vocab", "merges", "added", "prefix", "normalizer"])
def test_what_differs_from_gpt2s_is_a_tokenizer_of_its_own(change, gpt2_content, tmp_path):
    content = json.loads(json.dumps(gpt2_content))
    vocab = content["model"]["vocab"]
    if change == "vocab":
        vocab["he"], vocab["in"] = vocab["in"], vocab["he"]
    elif change == "merges":
        content["model"]["merges"].reverse()
    elif change == "added":
        content["added_tokens"].append(
            {**content["added_tokens"][0], "id": 50257, "content": "<x>"}
        )
    elif change == "prefix":
        content["pre_tokenizer"]["add_prefix_space"] = True
    else:
        content["normalizer"] = {"type": "NFC"}
    read = read_folder_tokenizer(put(tmp_path, tokenizer=content), 50256)
    assert read == {"name": "json", "eot": 50256, "content": content}


def test_a_model_of_gpt2s_size_gets_the_tokenizer_of_its_folder(tmp_path):
    """Otherwise 50,257 tokens of another language would be taken for GPT-2's in silence."""
    pytest.importorskip("safetensors")
    write_huggingface(tmp_path, Parameters(CONFIG))
    assert load_model(tmp_path)[1] == GPT2
    put(tmp_path, tokenizer=OWN, config={**json.loads((tmp_path / "config.json").read_text()),
                                         "eos_token_id": 257})  # fmt: skip
    for where in (tmp_path, tmp_path / "model.safetensors"):
        assert load_model(where)[1] == {"name": "json", "eot": 257, "content": OWN}


def test_the_older_files_with_added_tokens(tmp_path):
    pytest.importorskip("tokenizers")
    vocab = OWN["model"]["vocab"] | {"<|endoftext|>": 257}
    put(tmp_path, vocab=vocab, merges="#version: 0.2\na b\n", added_tokens={"<x>": 258})
    config = {"add_prefix_space": True, "added_tokens_decoder": {"259": {"content": "<y>"}}}
    put(tmp_path, tokenizer_config=config)
    tokenizer = tokenizer_from_description(read_folder_tokenizer(tmp_path, 257))
    assert tokenizer.vocab_size == 260
    assert tokenizer.encode("ab<x><y>") == [32, 256, 258, 259]


@pytest.mark.parametrize("name", ["spiece.model", "vocab.txt"])
def test_other_kinds_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileError, match=f"{name}: a tokenizer that npgpt cannot read: only"):
        read_folder_tokenizer(tmp_path, 0)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"tokenizer": "{"}, "tokenizer.json: not JSON"),
        ({"tokenizer": {}}, "tokenizer.json: not a tokenizer.json"),
        ({"tokenizer": OWN | {"decoder": {"type": "WordPiece"}}}, "only byte-level BPE"),
        ({"vocab": {}}, "merges.txt: No such file"),
        ({"vocab": {"a": 0}, "merges": "", "tokenizer_config": {"added_tokens_decoder": [1]}},
         "tokenizer_config.json: its added_tokens_decoder is damaged"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_sentence(contents, said, tmp_path):
    with pytest.raises(FileError, match=said):
        read_folder_tokenizer(put(tmp_path, **contents), 0)


def test_merges_come_back_from_the_tokens_alone():
    tokens = [bytes([i]) for i in range(256)] + [b"ab", b"abc", b"cd", b"abcd"]
    assert list(merges_of(tokens)) == [[b"a", b"b"], [b"ab", b"c"], [b"c", b"d"], [b"abc", b"d"]]


def test_without_gpt2s_files_a_note_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(tokenizer, "gpt2_encoding", tokenizer.gpt2_encoding.__wrapped__)
    write_huggingface(tmp_path / "m", Parameters(CONFIG), GPT2)
    assert "written without tokenizer.json: the gpt2 tokenizer's files" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "m")) == [
        "config.json",
        "model.safetensors",
        "model.tokenizer.json",
    ]


def test_another_models_tokenizer_does_not_stay(tmp_path):
    put(tmp_path, tokenizer=OWN, vocab={}, merges="", tokenizer_config={}, added_tokens={})
    write_huggingface(tmp_path, Parameters(CONFIG))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_a_tokenizer_goes_along_from_a_folder_to_a_file_and_back(tmp_path):
    pytest.importorskip("safetensors")
    description = {"name": "json", "eot": 257, "content": OWN}
    params = Parameters(GPT2Config(4, 259, 1, 1, 2))
    for target in ("one", "two.bin", "three"):
        write_model(tmp_path / target, params, description)
        assert load_model(tmp_path / target)[1] == description
    assert json.loads((tmp_path / "three" / "tokenizer.json").read_text("utf-8")) == OWN


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "bytes", "chars", "json"])
def test_transformers_finds_the_same_tokens(kind, tmp_path, request):
    transformers = pytest.importorskip("transformers", reason="needs the extra `reference`")
    pytest.importorskip("tokenizers")
    if kind == "gpt2":
        request.getfixturevalue("gpt2_content")
    description = {
        "gpt2": GPT2,
        "bytes": BytesTokenizer().description,
        "chars": CharsTokenizer("".join(sorted(set("".join(TEXTS))))).description,
        "json": {"name": "json", "eot": 257, "content": OWN},
    }[kind]
    ours = tokenizer_from_description(description)
    write_huggingface(tmp_path, Parameters(GPT2Config(4, ours.vocab_size, 1, 1, 2)), description)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.eos_token_id, len(theirs)) == (ours.eot, ours.vocab_size)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ids == ours.encode(text), text
        assert theirs.decode(ids) == text
    assert to_letters(b" ") == "\u0120"


@pytest.mark.parametrize("kind", ["bytes", "chars"])
def test_the_package_reads_what_is_written_for_it(kind):
    tokenizers = pytest.importorskip("tokenizers")
    letters = "".join(sorted(set("".join(TEXTS))))
    ours = BytesTokenizer() if kind == "bytes" else CharsTokenizer(letters)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(ours.description)))
    for text in TEXTS:
        assert theirs.encode(text).ids == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text


@pytest.mark.parametrize(
    ("eos", "options", "found"),
    [
        (257, {}, 257),
        ([258, 257], {}, 258),
        (50256, {}, 257),
        (None, {"eos_token": "<x>"}, 258),
        (None, {"eos_token": {"content": "<x>"}}, 258),
        ("<x>", {}, 257),
    ],
)
def test_the_end_of_text_is_found(eos, options, found, tmp_path):
    put(tmp_path, tokenizer=OWN, tokenizer_config=options)
    assert read_folder_tokenizer(tmp_path, eos)["eot"] == found


def test_without_its_names_the_last_added_token_is_the_end_of_text(tmp_path):
    own = bpe_content({LETTERS[i]: i for i in range(256)}, [], {"<s>": 256, "</s>": 257})
    put(tmp_path, tokenizer=own)
    assert read_folder_tokenizer(tmp_path, None)["eot"] == 257

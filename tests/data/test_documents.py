"""Texts in pieces: the same documents and tokens however they are cut, in bounded memory."""

import bz2
import gzip
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from npgpt.data import documents
from npgpt.data.documents import DOCUMENTS, last_cut, read_pieces, split_documents
from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import get_tokenizer
from npgpt.errors import FileError
from npgpt.prepro_text import main

WORDS = [
    "a",
    "bc ",
    "\n",
    "\n\n",
    " \t\n",
    "d\r\n",
    "\u3000",
    "ü伊",
    "  ",
    "<|endoftext|>",
    "<|end",
    "\x1c",
]


def joined(pieces):
    """The documents of a stream of pieces."""
    found = []
    for piece, begins in pieces:
        assert piece
        if begins:
            found.append("")
        found[-1] += piece
    return found


@pytest.mark.parametrize("by", DOCUMENTS)
@pytest.mark.parametrize("piece", [4, 30, 10_000])
def test_documents_do_not_depend_on_how_the_text_comes(by, piece, monkeypatch, rng):
    for _ in range(60):
        text = "".join(rng.choice(WORDS, rng.integers(0, 60)))
        expected = joined(split_documents([text], by))
        assert all(document.strip() for document in expected)
        with monkeypatch.context() as patched:
            patched.setattr(documents, "PIECE", piece)
            cuts = np.sort(rng.integers(0, len(text) + 1, 5)).tolist()
            chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            assert joined(split_documents(chunks, by)) == expected
        if by in ("file", "blank") and text.strip():
            blank = "".join(text.split())
            assert "".join("".join(expected).split()) == blank


def test_a_long_document_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 100)
    monkeypatch.setattr(documents, "LONGEST", 400)
    pieces = [piece for piece, _ in split_documents(["word " * 20] * 50, "file")]
    assert "".join(pieces) == "word " * 1000 and max(map(len, pieces)) <= 250
    pieces = [piece for piece, _ in split_documents(["x" * 90] * 50, "file")]  # no place to cut
    assert "".join(pieces) == "x" * 4500 and max(map(len, pieces)) <= 500


def test_a_text_is_cut_at_the_same_places_however_it_is_read(monkeypatch):
    """Also where the first blank comes after LONGEST."""
    monkeypatch.setattr(documents, "PIECE", 100)
    monkeypatch.setattr(documents, "LONGEST", 400)
    text = "x" * 420 + " " + "y" * 300
    whole = [*split_documents([text], "file")]
    assert len(whole[0][0]) == 400
    for size in (1, 7, 90, 415):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert [*split_documents(chunks, "file")] == whole, size


def test_tokens_are_those_of_the_whole(shared_data, monkeypatch, rng):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")[:100_000]
    text += "".join(rng.choice(WORDS, 20_000))
    monkeypatch.setattr(documents, "PIECE", 50)
    pieces = [piece for piece, _ in split_documents([text], "file")]
    assert len(pieces) > 1000
    ids = [token for piece in pieces for token in tokenizer.encode(piece)]
    assert ids == tokenizer.encode(text)


def test_compressed_files_and_standard_input_are_read(tmp_path, monkeypatch):
    text = "one\ntwo\nthree ü\n" * 5
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress(text.encode()))
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    paths = [tmp_path / "t.txt", tmp_path / "t.txt.gz", "-"]
    assert joined(read_pieces(paths)) == [text] * 3


def test_zst_is_read(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    content = zstandard.compress(b"one\n" * 9) + zstandard.compress(b"two\n" * 9)  # two frames
    (tmp_path / "t.zst").write_bytes(content)
    assert joined(read_pieces([tmp_path / "t.zst"])) == ["one\n" * 9 + "two\n" * 9]
    for damaged in (b"abc" * 99, content[:9] + b"\xff" * 9 + content[18:]):
        (tmp_path / "t.zst").write_bytes(damaged)
        with pytest.raises(FileError, match="t.zst: damaged, or not compressed"):
            list(read_pieces([tmp_path / "t.zst"]))


def test_json_lines_are_documents(tmp_path):
    texts = ["one\nand a half", "two", "", "ü" * 3000]
    content = "\n\n".join(json.dumps({"id": 1, "body": text}) for text in texts)
    (tmp_path / "t.jsonl").write_text(content)
    assert joined(read_pieces([tmp_path / "t.jsonl"], field="body")) == [t for t in texts if t]


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("t.gz", b"abc", {}, "t.gz: damaged, or not compressed"),
        ("t.gz", gzip.compress(b"abc" * 999, mtime=0)[:-9], {}, "t.gz: damaged, or not compressed"),
        ("t", b"ab" * (1 << 19) + b"a\xffb", {}, r"t: not UTF-8 text \(byte 1048577\)"),
        ("t", b"a" * ((1 << 20) - 1) + b"\xe4\xbc", {}, r"t: not UTF-8 text \(byte 1048575\)"),
        ("t", bz2.compress(b"x" * 99), {}, "t: not UTF-8 text"),
        ("t", "né".encode("utf-16"), {}, r"t: not UTF-8 .*: save it .* iconv -f utf-16 -t utf-8$"),
        ("t", "né".encode("latin1"), {}, r"t: not UTF-8 .*: save it .* iconv -f latin1 -t utf-8$"),
        ("t", b"\xfa\x00\x01", {}, "t: not UTF-8 text .byte 0. but binary data: save it as plain"),
        (
            "t",
            b'{"a": "b"}\n{"a": 5}',
            {"field": "a"},
            "t: line 2 is not a JSON object with a text",
        ),
        ("t", b'{"a": "b"}\n\n["a"]', {"field": "a"}, "t: line 3 is not a JSON object"),
        ("t", b'{"a": "\\ud800"}', {"field": "a"}, "t: line 1 is not a JSON object"),
        ("t", b"[" * 99_999, {"field": "a"}, "t: line 1 is not a JSON object"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, name, content, options, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=words):
        list(read_pieces([tmp_path / name], **options))


def test_the_program_reads_a_pipe_of_json_lines(tmp_path):
    lines = "".join(json.dumps({"text": f"document {i}\n"}) + "\n" for i in range(20))
    command = [
        sys.executable, "-m", "npgpt.prepro_text", "-", "--field", "text", "--tokenizer", "bytes",
        "--out", str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, input=lines, text=True, check=True, capture_output=True)
    assert sorted(os.listdir(tmp_path)) == [
        "stdin_train.bin", "stdin_train.tokenizer.json", "stdin_val.bin", "stdin_val.tokenizer.json"
    ]  # fmt: skip
    val = open_tokens(tmp_path / "stdin_val.bin")
    text = get_tokenizer("bytes").decode(val[0 : len(val)])
    assert text == "<|endoftext|>document 18\n<|endoftext|>document 19\n"


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["bytes", "chars"])
def test_memory_does_not_grow_with_the_text(tmp_path, tokenizer):
    """A text of 25 MB takes hardly more of it than one of 5 MB."""
    code = (
        "import resource, sys; from npgpt.prepro_text import main; assert main(sys.argv[1:]) == 0;"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for n_megabytes in (5, 25):
        line = "To be, or not to be, that is the question\n" * 24_000
        with open(tmp_path / "t.txt", "w") as file:
            for _ in range(n_megabytes):
                file.write(line)
        command = [sys.executable, "-c", code, str(tmp_path / "t.txt"), "--tokenizer", tokenizer]
        command += [
            "--out",
            str(tmp_path),
            "--documents",
            "line" if tokenizer == "chars" else "file",
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < 1.2 * peaks[0] + 10


def test_a_killed_program_leaves_no_file(tmp_path):
    assert main([str(tmp_path / "none"), "--tokenizer", "bytes", "--out", str(tmp_path)]) == 2
    assert os.listdir(tmp_path) == []


def test_a_text_is_cut_at_the_last_place_that_a_piece_has(monkeypatch):
    monkeypatch.setattr(documents, "PIECE", 8)
    monkeypatch.setattr(documents, "LONGEST", 20)
    assert last_cut("a b\nc d e f g h", 0) == 7
    assert last_cut("..a b\nc d e f g h", 2) == 9  # from there on
    assert last_cut("ab\ncdefghijk", 0) == 2
    assert last_cut("abcdefgh ijk", 0) == 8  # the next one: a piece has none
    assert last_cut("a    bcdefgh ", 0) == 1  # the first of some blanks
    assert last_cut("abcdefghijk", 0) is None
    assert last_cut("x" * 40, 0) == 20

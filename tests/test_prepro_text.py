"""Token files of any text: what a document is, which ones are for validation, and bad input."""

import errno
import os
import re
import shlex
import subprocess
import sys
import time

import pytest

from npgpt import FileError, train_gpt2
from npgpt.data import spool
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.documents import split_documents
from npgpt.data.spool import write_stream
from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import BytesTokenizer
from npgpt.prepro_text import main
from npgpt.wording import command


def documents(path):
    """The documents of a token file, decoded."""
    tokens = open_tokens(path)
    tokenizer = tokenizer_from_description(tokens.tokenizer_description)
    text = tokenizer.decode(tokens.read(0, len(tokens)))
    first, *rest = text.split("<|endoftext|>")
    assert first == ""
    return rest


def split(text, by):
    """The documents of a text."""
    found = []
    for piece, begins in split_documents([text], by):
        if begins:
            found.append("")
        found[-1] += piece
    return found


def run(*args):
    return main([str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path):
    """A folder with three texts at different depths, and what is none."""
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "2.txt").write_text("zwei\n", encoding="utf-8")
    (folder / "b" / "3.txt").write_bytes("\ufeffdreißig".encode())
    (folder / "a.txt").write_text("one\ntwo\n\nthree\n")
    (folder / "b" / "empty.txt").write_text(" \n")
    (folder / "a.bin").write_bytes(b"\xff\xff")
    (folder / "z.txt").mkdir()
    return folder


@pytest.mark.parametrize("tokenizer", ["bytes", "chars"])
def test_a_document_is_a_file(folder, tmp_path, tokenizer, capsys):
    assert run(folder, "--tokenizer", tokenizer, "--out", tmp_path / "out") == 0
    assert documents(tmp_path / "out" / "texts_train.bin") == ["one\ntwo\n\nthree\n", "zwei\n"]
    assert documents(tmp_path / "out" / "texts_val.bin") == ["dreißig"]  # the mark is no text
    val, train, following = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*texts_val.bin: \d tokens", val)
    assert re.fullmatch(r".*texts_train.bin: 22 tokens", train)
    assert following.startswith(f"train on it: {command('train', '--run', 'texts_run', '--train')}")


@pytest.mark.parametrize(
    ("text", "T", "splits"),
    [
        ("she sells sea shells " * 9, 64, ["train", "val"]),
        ("she sells sea shells", 18, ["train", "val"]),
        ("she sell", 7, ["train"]),  # 1 token is left for validation
        ("s", None, []),
    ],
)
def test_the_command_that_it_prints_trains(text, T, splits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my text.txt").write_text(text)
    assert main(["my text.txt", "--tokenizer", "bytes"]) == 0
    found = re.findall("^train on it: (.*)$", capsys.readouterr().out, re.MULTILINE)
    if not splits:
        assert not found
        return
    words = shlex.split(found[0].removeprefix(command()))
    given = train_gpt2.parse(words[1:], "npgpt train")
    assert given["T"] == T and [name for name in ("train", "val") if name in given] == splits
    assert given["train"] == os.path.join("data", "my text_train.bin")
    assert train_gpt2.main([*words[1:], "--steps", "1", "--sample-every", "0"]) == 0


def test_characters_are_those_of_both_parts(folder, tmp_path):
    assert run(folder, "--tokenizer", "chars", "--out", tmp_path) == 0
    for part in ("val", "train"):
        tokenizer = open_tokens(tmp_path / f"texts_{part}.bin").tokenizer_description
        assert tokenizer["characters"] == "".join(sorted(set("one\ntwothree\nzweidreißig")))


def test_gpt2_is_the_default(folder, tmp_path, shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    assert run(folder, "--out", tmp_path) == 0
    assert open_tokens(tmp_path / "texts_val.bin").tokenizer_description == {"name": "gpt2"}
    assert documents(tmp_path / "texts_val.bin") == ["dreißig"]


def test_a_document_is_a_line(folder, tmp_path):
    args = ["--tokenizer", "bytes", "--documents", "line", "--val-fraction", "0.4"]
    assert run(folder / "a.txt", folder / "b", *args, "--out", tmp_path, "--name", "n") == 0
    assert documents(tmp_path / "n_train.bin") == ["one\n", "two\n", "three\n"]
    assert documents(tmp_path / "n_val.bin") == ["zwei\n", "dreißig\n"]


def test_a_document_is_what_stands_between_blank_lines(folder, tmp_path):
    args = ["--tokenizer", "bytes", "--documents", "blank", "--format", "int32"]
    assert run(folder / "a.txt", *args, "--out", tmp_path) == 0
    assert documents(tmp_path / "a_train.bin") == ["one\ntwo\n\n"]
    assert documents(tmp_path / "a_val.bin") == ["three\n"]
    assert (tmp_path / "a_val.bin").stat().st_size == 4 * 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a\n\nb", ["a\n\n", "b"]),
        ("a\nb\n \t\n\n\nc\n\n", ["a\nb\n \t\n\n\n", "c\n\n"]),
        ("\n\n\na\n\n", ["a\n\n"]),
        ("a\r\n\r\nb\r\nc\r\n", ["a\r\n\r\n", "b\r\nc\r\n"]),
        ("", []),
        (" \n\n \n", []),
    ],
)
def test_blank_lines_part_documents_and_all_text_is_kept(text, expected):
    assert split(text, "blank") == expected


def test_lines_end_with_a_newline_and_blank_ones_are_left_out():
    assert split("a\n\n b\x0bc\nd", "line") == ["a\n", " b\x0bc\n", "d\n"]
    assert split("\n \n", "line") == split("\n \n", "file") == []


def test_tinyshakespeare_by_blank_lines_comes_back(shared_data, tmp_path):
    path = shared_data / "tinyshakespeare.txt"
    args = ["--documents", "blank", "--tokenizer", "chars", "--out", tmp_path]
    assert run(path, *args) == 0
    val, train = (documents(tmp_path / f"tinyshakespeare_{part}.bin") for part in ("val", "train"))
    assert "".join(train + val) == path.read_text(encoding="utf-8")
    assert len(val) == round(0.1 * len(train + val)) == 722
    assert train[0].startswith("First Citizen:\nBefore") and train[0].endswith(".\n\n")


def test_files_come_in_the_order_of_their_names(tmp_path):
    for name in ("g", "b", "k", "a", "f", "c", "i", "e", "j", "d", "h"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert run(tmp_path, "--tokenizer", "bytes", "--out", tmp_path, "--name", "n") == 0
    assert documents(tmp_path / "n_train.bin") == [*"abcdefghij"]


@pytest.mark.parametrize("tokenizer", ["gpt2", "chars"])
def test_what_is_encoded_on_all_cores_comes_in_its_order(
    tokenizer, tmp_path, shared_data, monkeypatch
):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    monkeypatch.setattr("npgpt.data.documents.GROUP", 100)
    monkeypatch.setattr("npgpt.data.spool.get_threads", lambda: 4)
    lines = [f"{'word ' * (997 * i % 50)}{i}\n" for i in range(300)]
    (tmp_path / "t.txt").write_text("".join(lines))
    args = ["--documents", "line", "--tokenizer", tokenizer, "--out", tmp_path]
    assert run(tmp_path / "t.txt", *args) == 0
    train, val = (documents(tmp_path / f"t_{part}.bin") for part in ("train", "val"))
    assert train + val == lines and len(val) == 30


def test_what_is_stopped_encodes_no_more_than_it_has_begun(tmp_path, monkeypatch):
    begun = []

    class Slow(BytesTokenizer):
        def encode_pieces(self, pieces):
            begun.append(pieces)
            time.sleep(0.3)
            return super().encode_pieces(pieces)

    def pieces():
        yield from [("a", True)] * 3
        raise KeyboardInterrupt

    monkeypatch.setattr("npgpt.data.documents.GROUP", 1)
    monkeypatch.setattr("npgpt.data.spool.get_threads", lambda: 1)
    monkeypatch.setattr("npgpt.data.spool.get_tokenizer", lambda name: Slow())
    with pytest.raises(KeyboardInterrupt):
        write_stream(pieces(), "t", "bytes", tmp_path, 0.1, "llmc", "t.txt")
    assert len(begun) < 3 and not [*tmp_path.iterdir()]


@pytest.mark.skipif(os.name == "nt", reason="there no process is known to run")
def test_what_a_killed_process_left_is_gone_before_the_work(tmp_path):
    """It may be as large as all the tokens, and the disk full. The old file stays."""
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    left, old = (
        tmp_path / f"t_train.bin.{killed.pid}.0.{kind}" for kind in ("partial", "old.partial")
    )
    for path in (left, old):
        path.write_bytes(b"tokens")

    def pieces(fails):
        assert not left.exists() and old.exists()
        yield from [("a", True), ("b", True)]
        if fails:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_stream(pieces(True), "t", "chars", tmp_path, 0.1, "llmc", "t.txt")
    assert [*tmp_path.iterdir()] == [old]
    assert write_stream(pieces(False), "t", "chars", tmp_path, 0.1, "llmc", "t.txt")["train"] == 2
    assert not old.exists()


@pytest.mark.parametrize("format", ["llmc", "int32"])
def test_characters_are_numbered_in_their_order_whenever_they_come(format, tmp_path, monkeypatch):
    monkeypatch.setattr("npgpt.data.spool.CHUNK", 3)
    monkeypatch.setattr("npgpt.data.documents.GROUP", 4)
    real = tmp_path / "elsewhere" / "t.bin"
    real.parent.mkdir()
    (tmp_path / "t_train.bin").symlink_to(real)
    texts = ["zzyyx", "zabcz", "\U0001f642!", "last"]
    pieces = [(text, True) for text in texts]
    write_stream(pieces, "t", "chars", tmp_path, 0.1, format, "t.txt")
    assert documents(tmp_path / "t_train.bin") == texts[:3]
    assert documents(tmp_path / "t_val.bin") == texts[3:]
    assert [*real.parent.iterdir()] == [real]


def test_a_disk_that_fills_at_the_end_leaves_the_old_files(tmp_path, monkeypatch):
    write_stream([("old", True), ("o", True)], "t", "bytes", tmp_path, 0.1, "llmc", "t.txt")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        write_stream([("new", True), ("n", True)], "t", "bytes", tmp_path, 0.1, "llmc", "t.txt")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tokens_for_training_are_written_once(tmp_path, monkeypatch):
    """What took them in becomes their file: its copy would need as much of the disk again."""
    copied = []
    write = spool.open_writer

    def count(path, n_tokens, *args):
        copied.append((path.name, n_tokens))
        return write(path, n_tokens, *args)

    monkeypatch.setattr(spool, "open_writer", count)
    pieces = [("12345", True), ("678", True)]
    write_stream(pieces, "t", "bytes", tmp_path, 0.1, "int32", "t.txt")
    assert copied == [("t_val.bin", 4)]
    assert open_tokens(tmp_path / "t_train.bin").read(0, 6).tolist() == [256, *b"12345"]


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_stands_in_the_way_is_told_before_the_work(part, tmp_path, monkeypatch, capsys):
    (tmp_path / "t.txt").write_text("text")
    (tmp_path / "out" / f"t_{part}.bin").mkdir(parents=True)
    monkeypatch.setattr(spool, "group_pieces", None)  # nothing is encoded
    assert run(tmp_path / "t.txt", "--tokenizer", "bytes", "--out", tmp_path / "out") == 2
    assert f"t_{part}.bin: is a folder" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "out").iterdir()] == [f"t_{part}.bin"]


def test_a_single_document_is_cut(tmp_path):
    (tmp_path / "t.txt").write_text("0123456789" * 10)
    args = ["--tokenizer", "chars", "--val-fraction", "0.2", "--out", tmp_path]
    assert run(tmp_path / "t.txt", *args) == 0
    train, val = (open_tokens(tmp_path / f"t_{part}.bin") for part in ("train", "val"))
    assert len(train) == 81 and len(val) == 20
    stream = [10, *([*range(10)] * 10)]
    assert [*train.read(0, 81), *val.read(0, 20)] == stream


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.txt"], "none.txt: No such file or directory"),
        (["bad.txt"], "bad.txt: not UTF-8 text (byte 2)"),
        (["blank.txt"], "blank.txt: contains no text"),
        (["blank.txt", "blank.txt"], "blank.txt, blank.txt: contains no text"),
        (["empty"], "empty: no .txt file is below this folder"),
        (["good.txt", "--val-fraction", "1"], "--val-fraction must be between 0 and 1, not 1.0"),
        (["good.txt", "--name", "a/b"], "--name must be a file's name without a folder, not 'a/b'"),
        (["good.txt", "--name", ""], "--name must be a file's name without a folder, not ''"),
        (["good.txt", "--out", "good.txt"], "good.txt: cannot be created: File exists"),
        (["many.txt"], "not written: tokens must be from 0 to 65535 in the format llmc"),
    ],
)
def test_bad_input_is_one_sentence(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "empty").mkdir()
    if args == ["many.txt"]:
        many = "".join(map(chr, [*range(0x10000, 0x20000), *range(100, 200)]))
        (tmp_path / "many.txt").write_text(many, encoding="utf-8")
    assert run(*args, "--tokenizer", "chars") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("data/*"))


@pytest.mark.parametrize("args", [[], ["x.txt", "--documents", "word"], ["x", "--tokenizer", "b"]])
def test_bad_options_are_one_sentence(args, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*args)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1

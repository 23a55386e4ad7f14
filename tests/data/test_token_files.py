"""Token files: byte for byte as others write them, read by their content, refused if damaged."""

import os
import tracemalloc

import numpy as np
import pytest
from helpers import highest

from npgpt import ArgumentError, FileError
from npgpt.data import token_files
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens


def test_llm_cs_format_has_a_header_and_uint16(tmp_path):
    write_tokens(tmp_path / "t.bin", [1, 50256, 65535])
    content = (tmp_path / "t.bin").read_bytes()
    words = np.frombuffer(content[:1024], "<i4")
    np.testing.assert_array_equal(words[:3], [20240520, 1, 3])
    assert not words[3:].any()
    assert content[1024:] == bytes([1, 0, 0x50, 0xC4, 0xFF, 0xFF])


def test_the_first_releases_format_is_raw_int32(tmp_path):
    write_tokens(tmp_path / "t.bin", [1, 70000], format="int32")
    assert (tmp_path / "t.bin").read_bytes() == bytes([1, 0, 0, 0, 0x70, 0x11, 1, 0])


@pytest.mark.parametrize(("tokens", "format"), [([65536], "llmc"), ([-1], "llmc"), ([-1], "int32")])
def test_tokens_that_do_not_fit_are_not_written(tokens, format, tmp_path):
    with pytest.raises(FileError, match="not written: tokens must be from 0 to"):
        write_tokens(tmp_path / "t.bin", tokens, format)
    assert os.listdir(tmp_path) == []


def test_what_is_no_stream_of_tokens_or_no_format_is_refused(tmp_path):
    for tokens in ([1.5], [[1]], []):
        with pytest.raises(ArgumentError, match="tokens must be integers of shape"):
            write_tokens(tmp_path / "t.bin", tokens)
    with pytest.raises(ArgumentError, match="format must be one of llmc, int32, not 'uint16'"):
        write_tokens(tmp_path / "t.bin", [1], format="uint16")


def raw(path, ids, dtype):
    np.array(ids, dtype).tofile(path)
    return path


IDS = [50256, 3, 0, 70, 0, 0, 257, 12, 0, 1]


@pytest.mark.parametrize("form", ["llmc", "int32", "nanogpt"])
def test_each_format_is_told_by_its_content_and_comes_back(form, tmp_path):
    path = tmp_path / "t.bin"
    if form == "nanogpt":
        raw(path, IDS, "<u2")
    else:
        write_tokens(path, IDS, form)
    tokens = open_tokens(path)
    assert len(tokens) == len(IDS)
    assert tokens.read(0, len(IDS)).tolist() == IDS
    assert tokens.read(3, 2).dtype == np.int64
    assert highest(tokens) == 50256
    assert tokens.paths == [str(path)]
    assert tokens.tokenizer_description is None


def test_only_the_part_that_is_asked_for_is_read(tmp_path):
    path = tmp_path / "t.bin"
    tokens = np.arange(5_000_000) % 60_000
    write_tokens(path, tokens)
    opened = open_tokens(path)
    tracemalloc.start()
    try:
        assert opened.read(4_000_000, 3).tolist() == tokens[4_000_000:4_000_003].tolist()
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1024, 1030, 2000])
def test_a_file_that_was_changed_since_is_a_sentence(size, tmp_path):
    path = tmp_path / "t.bin"
    write_tokens(path, range(400))
    tokens = open_tokens(path)
    os.truncate(path, size)
    with pytest.raises(FileError, match=f"t.bin: was changed while in use: it has {size:,} bytes"):
        tokens.read(350, 10)


def test_a_path_holds_when_the_working_folder_changes(tmp_path, monkeypatch):
    write_tokens(tmp_path / "t.bin", IDS)
    monkeypatch.chdir(tmp_path)
    tokens = open_tokens("t.bin")
    monkeypatch.chdir("/")
    assert tokens.read(0, len(IDS)).tolist() == IDS


def test_a_pattern_matches_no_partial_files(tmp_path):
    write_tokens(tmp_path / "a.bin", [1, 2])
    (tmp_path / "a.bin.4242.partial").write_bytes(b"\1\0")
    assert open_tokens(tmp_path / "a*").paths == [str(tmp_path / "a.bin")]


def test_int32_is_told_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "CHUNK", 4)
    tokens = open_tokens(raw(tmp_path / "int32.bin", [7] * 20, "<i4"))
    assert len(tokens) == 20 and highest(tokens) == 7
    tokens = open_tokens(raw(tmp_path / "uint16.bin", [*[7, 0] * 10, 9, 300], "<u2"))  # the last
    assert len(tokens) == 22 and highest(tokens) == 300


def test_ids_beyond_uint16_are_still_int32(tmp_path):
    ids = [5, 65536, 100_000, 8, 9, 262_143, 1, 2]
    write_tokens(tmp_path / "t.bin", ids, "int32")
    assert open_tokens(tmp_path / "t.bin").read(0, 8).tolist() == ids


@pytest.mark.parametrize("ids", [[1, 2, 3, 3], [5, 0, 7], [3, 2, 0, 1, 3, 1], [9, 0, 9, 4]])
def test_uint16_is_not_taken_for_int32(ids, tmp_path):
    assert open_tokens(raw(tmp_path / "t.bin", ids, "<u2")).read(0, len(ids)).tolist() == ids


def test_reading_goes_across_the_borders_of_files(tmp_path):
    write_tokens(tmp_path / "s_01.bin", [1, 2, 3])
    write_tokens(tmp_path / "s_02.bin", [4, 5], "int32")
    raw(tmp_path / "s_03.bin", [600, 700, 800], "<u2")
    (tmp_path / "s_01.tokenizer.json").write_text('{"name": "gpt2"}')
    (tmp_path / "s_03.tokenizer.json").write_text('{"name": "gpt2"}')
    tokens = open_tokens(str(tmp_path / "s_*"))
    assert len(tokens) == 8
    everything = [1, 2, 3, 4, 5, 600, 700, 800]
    for start in range(9):
        for count in range(9 - start):
            assert tokens.read(start, count).tolist() == everything[start : start + count]
            assert tokens[start : start + count].tolist() == everything[start : start + count]
    assert tokens[-3:].tolist() == [600, 700, 800] and tokens[5:2].tolist() == []
    with pytest.raises(ArgumentError, match="the step of a slice of tokens must be 1, not 2"):
        tokens[::2]
    assert highest(tokens) == 800
    assert list(tokens.max_token_by_file()) == [
        (str(tmp_path / "s_01.bin"), 3), (str(tmp_path / "s_02.bin"), 5),
        (str(tmp_path / "s_03.bin"), 800),
    ]  # fmt: skip
    assert tokens.tokenizer_description == {"name": "gpt2"}
    for start, count in ((0, 9), (8, 1), (-1, 2), (3, -1)):
        with pytest.raises(ArgumentError, match="are out of range: there are 8"):
            tokens.read(start, count)


def test_files_are_sorted_within_a_pattern_and_patterns_stay_in_order(tmp_path):
    for name, token in (("b2", 2), ("b10", 10), ("a1", 1)):
        write_tokens(tmp_path / f"{name}.bin", [token])
    patterns = [f"{tmp_path}/b*.bin", tmp_path / "a1.bin"]
    assert open_tokens(patterns).read(0, 3).tolist() == [10, 2, 1]


def test_a_path_that_looks_like_a_pattern_is_taken_as_it_is(tmp_path):
    write_tokens(tmp_path / "t[1].bin", [5])
    write_tokens(tmp_path / "t1.bin", [6])
    assert open_tokens(tmp_path / "t[1].bin").read(0, 1).tolist() == [5]


def test_tokenizers_that_disagree_are_refused(tmp_path):
    for name, description in (("a", {"name": "bytes"}), ("b", {"name": "gpt2"})):
        write_tokens(tmp_path / f"{name}.bin", [1])
        write_tokenizer(tmp_path / f"{name}.bin", description)
    with pytest.raises(FileError, match=r"b.bin: its tokenizer is not that of .*a.bin"):
        open_tokens(tmp_path / "*.bin")
    write_tokenizer(tmp_path / "a.bin", {"name": "gpt2"})
    assert open_tokens(tmp_path / "*.bin").tokenizer_description == {"name": "gpt2"}


def llmc(*words, tail=b""):
    return np.array([*words, *[0] * (256 - len(words))], "<i4").tobytes() + tail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.bin: contains no tokens"),
        (b"\x00\xffc", r"t.bin: not a token file \(3 bytes, which is odd\)"),
        (llmc(20240520, 1, 0), "t.bin: contains no tokens"),
        (
            llmc(20240520, 1, 3, tail=b"1234"),
            r"truncated \(1,028 bytes, a token file of 3 tokens takes 1,030",
        ),
        (
            llmc(20240520, 1, 1, tail=b"1234"),
            r"too long \(1,028 bytes, a token file of 1 token takes 1,026",
        ),
        (llmc(20240520, 1, 2**31 - 1), "truncated"),
        (llmc(20240520, 1, -1), "header is damaged: its token count is -1"),
        (llmc(20240520, 2, 2, tail=b"1234"), "of version 2, but only 1 is known"),
        (llmc(20240520, 1, 2, 7, tail=b"1234"), "header is damaged: word 3 must be 0, not 7"),
        (llmc(20240520, 1)[:100], "not a token file"),
        (llmc(20240326, 3), "not a token file but a GPT-2 checkpoint"),
        (np.array([1, 2, -1, 4], "<i4").tobytes(), "tokens must be 0 or more, but this int32"),
    ],
)
def test_a_bad_file_is_one_sentence(content, message, tmp_path):
    (tmp_path / "t.bin").write_bytes(content)
    with pytest.raises(FileError, match=message) as raised:
        open_tokens(tmp_path / "t.bin")
    assert "\n" not in str(raised.value)


def test_files_that_are_not_there_and_folders_are_refused(tmp_path):
    (tmp_path / "folder.bin").mkdir()
    (tmp_path / "x.tokenizer.json").write_text("{}")
    for pattern, message in (
        ("none.bin", "none.bin: No such file"),
        ("none*.bin", r"none\*.bin: no file matches this pattern"),
        ("x*", r"x\*: no file matches this pattern"),
        ("folder.bin", "folder.bin: is a folder"),
        ("fold*", "folder.bin: is a folder"),
    ):
        with pytest.raises(FileError, match=message):
            open_tokens(tmp_path / pattern)
    with pytest.raises(ArgumentError, match="no token files are named"):
        open_tokens([])

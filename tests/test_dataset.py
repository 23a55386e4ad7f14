"""Token files, byte for byte."""

import os

import numpy as np
import pytest

from npgpt import ArgumentError, FileError
from npgpt.dataset import write_tokens


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

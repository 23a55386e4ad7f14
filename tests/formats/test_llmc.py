"""llm.c's model files: byte for byte, and nothing but one sentence for what is none."""

import os
import re
import tracemalloc

import numpy as np
import pytest
from helpers import TINY_MODEL, changed

from npgpt import (
    GPT2,
    PUBLISHED,
    ArgumentError,
    FileError,
    GPT2Config,
    Parameters,
    read_checkpoint,
    write_checkpoint,
)

ODD = GPT2Config(block_size=5, vocab_size=131, n_layer=2, n_head=1, n_embd=3)


def header(path):
    return np.fromfile(path, "<i4", 256)


def test_the_tiny_pairs_file_is_written_as_it_was_read(params, tmp_path):
    write_checkpoint(tmp_path / "copy.bin", params, version=3)
    assert (tmp_path / "copy.bin").read_bytes() == TINY_MODEL.read_bytes()


@pytest.mark.parametrize("version", [1, 3, 5])
@pytest.mark.parametrize("vocab_size", [128, 131, 1])
def test_every_version_is_read_as_written_and_written_as_read(version, vocab_size, tmp_path):
    config = GPT2Config(5, vocab_size, n_layer=2, n_head=1, n_embd=3)
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    params = Parameters.init(config, seed=1)
    write_checkpoint(first, params, version)
    again = read_checkpoint(first)
    write_checkpoint(second, again, version)
    assert first.read_bytes() == second.read_bytes()
    assert again.config == config
    rounding = 2**-8 if version == 5 else 0
    np.testing.assert_allclose(again.flat, params.flat, rtol=rounding)


def test_the_header_is_llm_cs(tmp_path):
    for version in (1, 3, 5):
        write_checkpoint(tmp_path / "m.bin", Parameters(ODD), version)
        words = [20240326, version, 5, 131, 2, 1, 3, 0 if version == 1 else 256]
        np.testing.assert_array_equal(header(tmp_path / "m.bin")[:8], words)
        assert not header(tmp_path / "m.bin")[8:].any()


@pytest.mark.parametrize(
    ("version", "size"), [(1, 497_760_256), (3, 497_904_640), (5, 248_952_832)]
)
def test_the_124M_sizes_are_llm_cs(version, size, tmp_path):
    """The size that is asked of the real file, without making one."""
    c = PUBLISHED["124M"]
    words = [20240326, version, c.block_size, c.vocab_size, c.n_layer, c.n_head, c.n_embd, 50304]
    path = tmp_path / "m.bin"
    words[7] = 0 if version == 1 else 50304
    path.write_bytes(np.array(words + [0] * 248, "<i4").tobytes())
    with pytest.raises(FileError, match=f"truncated .1,024 bytes, .* takes {size:,}"):
        read_checkpoint(path)


def test_bfloat16_rounds_to_nearest_even(tmp_path):
    params = Parameters(GPT2Config(1, 1, 1, 1, 1))
    values = np.array([1.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 1e-40, 3e38])
    params.flat[: len(values)] = values
    write_checkpoint(tmp_path / "m.bin", params, version=5)
    read = read_checkpoint(tmp_path / "m.bin").flat[: len(values)]
    # ties go to the even neighbour; what is a little above a tie goes up
    expected = [1.0, -0.0, 1.0, 1 + 2**-6, 1 + 2**-7, read[5], read[6]]
    np.testing.assert_array_equal(read, np.array(expected, np.float32))
    assert np.signbit(read[1])
    np.testing.assert_allclose(read[5:7], [1e-40, 3e38], rtol=0.01, atol=2**-134)


def test_weights_beyond_bfloat16_are_not_written(tmp_path):
    params = Parameters(ODD)
    params.wpe[0, 0] = np.finfo(np.float32).max
    with pytest.raises(FileError, match="beyond bfloat16"):
        write_checkpoint(tmp_path / "m.bin", params, version=5)
    assert os.listdir(tmp_path) == []


def test_padding_is_carried_along_and_never_shows(tmp_path):
    path, again = tmp_path / "m.bin", tmp_path / "again.bin"
    write_checkpoint(path, Parameters.init(ODD, seed=1), version=3)
    row = 1024 + 4 * 131 * 3  # the first byte of the padding
    content = bytearray(path.read_bytes())
    content[row : row + 4 * 125 * 3] = np.full(125 * 3, 50.0, "<f4").tobytes()
    path.write_bytes(content)

    model = GPT2.from_checkpoint(path)
    assert model.forward([[1, 2]]).shape == (1, 2, 131)
    assert model.generate([[1, 2]], 30, seed=0).max() < 131
    for _ in range(3):
        model.forward_backward([[1, 2]], [[3, 4]])
        model.update(1e-2, weight_decay=0.5)
    write_checkpoint(again, model.params)
    assert again.read_bytes()[row : row + 4 * 125 * 3] == content[row : row + 4 * 125 * 3]
    assert again.read_bytes()[:row] != content[:row]


def test_an_unpadded_model_is_padded_with_zeros_and_a_padded_one_cut(params, tmp_path):
    path = tmp_path / "m.bin"
    write_checkpoint(path, params, version=1)
    unpadded = read_checkpoint(path)
    assert unpadded.wte_padding is None
    write_checkpoint(path, unpadded, version=3)
    assert path.read_bytes() == TINY_MODEL.read_bytes()


def test_any_truncation_is_refused(tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(TINY_MODEL.read_bytes())
    size = path.stat().st_size
    cuts = [*range(size - 4, 1024, -404), *range(1024, -1, -4), 1, 3, 1023, size - 1]
    for cut in sorted(cuts, reverse=True):
        os.truncate(path, cut)
        with pytest.raises(FileError, match="truncated|the header alone"):
            read_checkpoint(path)


@pytest.mark.parametrize("word", range(2, 8))
@pytest.mark.parametrize("value", [-(2**31), -1, 0, 1, 7, 1000, 2**31 - 1])
def test_a_changed_header_is_refused_without_taking_memory(word, value, tmp_path):
    path = changed(TINY_MODEL, tmp_path / "m.bin", word, value)
    if word == 5 and value == 1:  # one head instead of four: another model, of the same size
        assert read_checkpoint(path).config.n_head == 1
        return
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="m.bin: (the header is damaged|truncated|too long)"):
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (0, 20240327, "not a GPT-2 checkpoint .magic 20240327, expected 20240326"),
        (1, 2, "a GPT-2 checkpoint of version 2, but 1, 3 and 5 are known"),
        (5, 5, "the header is damaged: n_embd must be divisible by n_head: 48 by 5 is not"),
        (8, 1, "the header is damaged: word 8 must be 0, not 1"),
        (255, -1, "the header is damaged: word 255 must be 0, not -1"),
        (7, 384, "padded_vocab_size is 384, but vocab_size 251 padded to a multiple of 128 is 256"),
    ],
)
def test_the_sentence_names_what_is_wrong(word, value, message, tmp_path):
    path = changed(TINY_MODEL, tmp_path / "m.bin", word, value)
    with pytest.raises(FileError, match=message):
        read_checkpoint(path)


def test_trailing_bytes_are_refused(tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(TINY_MODEL.read_bytes() + b"\0")
    with pytest.raises(FileError, match="too long"):
        read_checkpoint(path)


@pytest.mark.parametrize("version", [1, 3, 5])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("back", [96, 97])  # numbers before the end of the file
def test_weights_that_are_not_finite_are_refused_and_located(
    version, value, back, params, tmp_path
):
    path, L = tmp_path / "m.bin", params.config.n_layer
    where = {96: "lnfw[0]", 97: f"fcprojb[{L - 1}, 47]"}[back]
    write_checkpoint(path, params, version)
    size = 2 if version == 5 else 4
    at = path.stat().st_size - back * size
    bits = np.float32(value).view("<u4")
    number = (bits >> 16).astype("<u2") if version == 5 else bits
    content = bytearray(path.read_bytes())
    content[at : at + size] = number.tobytes()
    path.write_bytes(content)
    with pytest.raises(FileError, match=re.escape(f"the weights are damaged: {where} is {value}")):
        read_checkpoint(path)


def test_padding_that_is_not_finite_is_refused(tmp_path):
    path = changed(TINY_MODEL, tmp_path / "m.bin", 256 + 251 * 48, 0x7FC00000)
    with pytest.raises(FileError, match=r"wte's padding\[0, 0\] is nan"):
        read_checkpoint(path)


def test_weights_that_are_not_finite_are_not_written_and_the_old_file_stays(params, tmp_path):
    path = tmp_path / "m.bin"
    path.write_bytes(b"old")
    params.fcw[1, 2, 3] = np.nan
    with pytest.raises(FileError, match=r"fcw\[1, 2, 3\] is nan"):
        write_checkpoint(path, params)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.bin"]


def test_weights_that_only_float64_can_hold_are_not_written(tmp_path):
    params = Parameters(ODD, dtype=np.float64)
    params.wpe[1, 2] = 1e300
    with pytest.raises(FileError, match=r"wpe\[1, 2\] is 1e\+300"):
        write_checkpoint(tmp_path / "m.bin", params)
    assert os.listdir(tmp_path) == []


def test_an_unknown_version_is_not_written(params, tmp_path):
    with pytest.raises(ArgumentError, match="version must be one of 1, 3 and 5, not 2"):
        write_checkpoint(tmp_path / "m.bin", params, version=2)

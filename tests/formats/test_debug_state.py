"""llm.c's debug states: byte for byte, and nothing but one sentence for what is none."""

import os
import tracemalloc

import numpy as np
import pytest
from helpers import TINY_STATE, changed

from npgpt import (
    PUBLISHED,
    ArgumentError,
    DebugState,
    FileError,
    GPT2Config,
    Parameters,
    read_debug_state,
    write_debug_state,
)


def test_the_tiny_pairs_state_is_written_as_it_was_read(state, tmp_path):
    write_debug_state(tmp_path / "copy.bin", state, version=2)
    assert (tmp_path / "copy.bin").read_bytes() == TINY_STATE.read_bytes()


def test_version_1_holds_the_same_without_padding(state, params, tmp_path):
    path, again = tmp_path / "one.bin", tmp_path / "again.bin"
    write_debug_state(path, state, version=1)
    assert path.stat().st_size == TINY_STATE.stat().st_size - 5 * 48 * 4
    read = read_debug_state(path, params)
    for name in ("x", "y", "logits", "loss"):
        np.testing.assert_array_equal(getattr(read, name), getattr(state, name))
    np.testing.assert_array_equal(read.grads.flat, state.grads.flat)
    write_debug_state(again, read, version=1)
    assert again.read_bytes() == path.read_bytes()


def test_an_unpadded_models_version_2_is_padded_to_a_multiple_of_128(tmp_path):
    config = GPT2Config(4, 130, 1, 1, 2)
    x = np.zeros((2, 3), np.int32)
    logits = np.zeros((2, 3, 130), np.float32)
    state = DebugState(x, x, logits, np.float32(1), Parameters.init(config))
    write_debug_state(tmp_path / "s.bin", state, version=2)
    read = read_debug_state(tmp_path / "s.bin", Parameters(config))
    assert read.grads.wte_padding.shape == (126, 2)
    np.testing.assert_array_equal(read.grads.flat, state.grads.flat)


@pytest.mark.parametrize(("version", "size"), [(1, 549_225_476), (2, 549_369_860)])
def test_the_124M_sizes_are_llm_cs(version, size, tmp_path):
    """The size that is asked of the real file, without making one."""
    path = tmp_path / "s.bin"
    path.write_bytes(np.array([20240327, version, 4, 64] + [0] * 252, "<i4").tobytes())
    with pytest.raises(FileError, match=f"truncated .1,024 bytes, .* takes {size:,}"):
        read_debug_state(path, Parameters(PUBLISHED["124M"]))


def test_any_truncation_is_refused(params, tmp_path):
    path = tmp_path / "s.bin"
    path.write_bytes(TINY_STATE.read_bytes())
    size = path.stat().st_size
    for cut in [size - 1, *range(size - 4, 1024, -404), *range(1024, -1, -4)]:
        os.truncate(path, cut)
        with pytest.raises(FileError, match="truncated|the header alone"):
            read_debug_state(path, params)


@pytest.mark.parametrize("word", [2, 3])
@pytest.mark.parametrize("value", [-(2**31), -1, 0, 1, 7, 1000, 2**31 - 1])
def test_a_changed_header_is_refused_without_taking_memory(word, value, params, tmp_path):
    path = changed(TINY_STATE, tmp_path / "s.bin", word, value)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match="s.bin: (the header is damaged|truncated|too long)"):
            read_debug_state(path, params)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        (0, 20240326, "not a GPT-2 debug state .magic 20240326, expected 20240327"),
        (1, 3, "a GPT-2 debug state of version 3, but 1 and 2 are known"),
        (256, 251, "x has tokens from .* to 251, this model's run from 0 to 250"),
        (256, -1, "x has tokens from -1"),
        (256 + 120, -2, "y has tokens from -2"),
    ],
)
def test_the_sentence_names_what_is_wrong(word, value, message, params, tmp_path):
    path = changed(TINY_STATE, tmp_path / "s.bin", word, value)
    with pytest.raises(FileError, match=message):
        read_debug_state(path, params)


def test_another_models_state_is_refused():
    with pytest.raises(FileError, match="goes with this model"):
        read_debug_state(TINY_STATE, Parameters(GPT2Config(40, 251, 2, 4, 52)))
    with pytest.raises(FileError, match="another model's state: B=4, T=30"):
        read_debug_state(TINY_STATE, Parameters(GPT2Config(29, 251, 2, 4, 48)))


def test_trailing_bytes_are_refused(params, tmp_path):
    path = tmp_path / "s.bin"
    path.write_bytes(TINY_STATE.read_bytes() + b"\0\0\0\0")
    with pytest.raises(FileError, match="too long"):
        read_debug_state(path, params)


def test_an_unknown_version_is_not_written(state, tmp_path):
    with pytest.raises(ArgumentError, match="version must be one of 1 and 2, not 3"):
        write_debug_state(tmp_path / "s.bin", state, version=3)

"""The kernels' memory: used again, and given back."""

import gc
import os
import sys

import numpy as np
import pytest

from npgpt import GPT2, GPT2Config
from npgpt.kernels.memory import buffers
from npgpt.model.passes import RECOMPUTE, activation_bytes, logit_bytes

SHAPE = (100, 1000)


@pytest.fixture(autouse=True)
def nothing_idle():
    gc.collect()
    buffers.free()


def test_memory_is_used_again_once_the_last_view_is_gone():
    array = buffers.empty(SHAPE, np.float32)
    address, row = array.ctypes.data, array[1]
    row[:] = 7
    del array
    other = buffers.empty(SHAPE, np.float32)
    assert other.ctypes.data != address  # row still looks at it
    other[:] = 0
    assert (row == 7).all()
    del row
    assert buffers.empty(SHAPE, np.float32).ctypes.data == address


def test_arrays_are_of_the_shape_and_dtype_asked_for_and_can_be_written():
    for dtype in (np.float32, np.float64):
        for shape in (SHAPE, (3,), (0, 4)):
            array = buffers.empty(shape, dtype)
            assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous
            array[...] = 1


def test_another_size_lets_go_of_what_lies_idle(monkeypatch):
    monkeypatch.setattr(buffers, "MIN_IDLE_BYTES", 399_999)
    del_me = buffers.empty(SHAPE, np.float32)
    del del_me
    assert buffers.idle_bytes() == 400_000
    kept = buffers.empty((6, 10_000), np.float32)
    assert buffers.idle_bytes() == 0
    assert kept.size == 60_000


def test_a_little_may_lie_idle_while_nothing_is_in_use():
    del_me = buffers.empty(SHAPE, np.float32)
    del del_me
    kept = buffers.empty((6, 10_000), np.float32)
    assert buffers.idle_bytes() == 400_000
    assert kept.size == 60_000


def test_an_idle_block_serves_an_array_of_at_least_two_thirds_of_its_size():
    large, small = (buffers.empty((n, 10_000), np.float32) for n in (16, 12))
    addresses = large.ctypes.data, small.ctypes.data
    del large, small
    taken = [buffers.empty((11, 10_000), np.float32) for _ in range(2)]  # the nearest size first
    assert [array.ctypes.data for array in taken] == [*reversed(addresses)]
    assert [array.size for array in taken] == [110_000, 110_000]
    assert buffers.idle_bytes() == 0 and buffers.used_bytes() == 4 * 280_000


@pytest.mark.parametrize(("rows", "idle"), [(10, 0), (9, 600_000)])
def test_a_block_stays_idle_while_only_far_smaller_arrays_are_made(rows, idle):
    large = buffers.empty((15, 10_000), np.float32)
    del large
    small = buffers.empty((rows, 10_000), np.float32)
    assert buffers.idle_bytes() == idle and small.shape == (rows, 10_000)


@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_second_step_takes_no_new_memory(recompute, dropout, monkeypatch, rng):
    config = GPT2Config(block_size=64, vocab_size=300, n_layer=2, n_head=2, n_embd=64)
    model = GPT2(config, recompute=recompute)
    tokens, targets = rng.integers(0, 300, (2, 8, 64))
    for _ in range(2):
        model.forward_backward(tokens, targets, dropout=dropout)
    monkeypatch.setattr(buffers, "new_block", lambda size: pytest.fail("new memory"))
    loss = model.forward_backward(tokens, targets, dropout=dropout)
    model.params.wte[:] *= 2  # another result, and so no array that was merely left as it was
    assert model.forward_backward(tokens, targets, dropout=dropout) != loss


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_a_step_takes_as_much_memory_as_is_estimated(recompute, monkeypatch, rng):
    monkeypatch.setattr("npgpt.core.threads._count", 1)  # each has workspace of its own
    config = GPT2Config(block_size=128, vocab_size=64, n_layer=4, n_head=4, n_embd=256)
    model = GPT2(config, recompute=recompute)
    model.forward_backward(*rng.integers(0, 64, (2, 8, 128)))
    unit = 4 * 8 * 128 * 256  # bytes of (B, T, C)
    expected = activation_bytes(config, 8, 128, recompute)
    expected += logit_bytes(config, 8, 128, recompute)
    assert buffers.idle_bytes() / unit == pytest.approx(expected / unit, abs=2.5)


def test_a_model_that_is_gone_leaves_no_memory_behind(rng):
    model = GPT2(GPT2Config(block_size=64, vocab_size=300, n_layer=2, n_head=2, n_embd=64))
    model.forward_backward(*rng.integers(0, 300, (2, 8, 64)))
    assert buffers.idle_bytes() > 0
    del model
    gc.collect()
    assert buffers.idle_bytes() == buffers.used_bytes() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_has_memory_of_its_own():
    array = buffers.empty(SHAPE, np.float32)
    array[:] = 1
    child = os.fork()
    if child == 0:
        array[:] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert (array == 1).all()


def test_no_python_code_runs_as_an_array_goes():
    """A KeyboardInterrupt that is raised in a weak reference's callback is lost."""
    array, events = buffers.empty((1 << 20,), np.uint8), []
    sys.setprofile(lambda frame, event, argument: events.append(event))
    del array
    sys.setprofile(None)
    assert "call" not in events
    before = buffers.idle_bytes()
    assert before >= 1 << 20
    buffers.empty((1 << 20,), np.uint8)
    assert buffers.used_bytes() == 0 and buffers.idle_bytes() == before

"""What ranks tell each other, by ranks that are threads: sums, broadcasts, failures, silence."""

import numpy as np
import pytest
from ranks import in_ranks

from npgpt.errors import ArgumentError
from npgpt.parallel import communicator
from npgpt.parallel.communicator import ALONE, PeerError


@pytest.mark.parametrize("size", [2, 3, 5])
def test_each_rank_has_the_numbers_of_all_in_their_order(size):
    found = in_ranks(size, lambda comm: comm.gather([comm.rank, 1e16 if comm.rank == 1 else 0.5]))
    for parts in found:
        np.testing.assert_array_equal(parts[:, 0], range(size))
        np.testing.assert_array_equal(parts, found[0])


def test_a_sum_is_made_in_the_order_of_the_ranks():
    values = [1e16, 1.0, -1e16]
    sums = in_ranks(3, lambda comm: comm.sum([values[comm.rank]])[0])
    assert sums == [(1e16 + 1.0) - 1e16] * 3
    assert 1.0 + (1e16 - 1e16) != sums[0]


def test_what_rank_0_has_reaches_all(monkeypatch):
    monkeypatch.setattr(communicator, "CHUNK", 1000)  # bytes: several on their way

    def receive(comm):
        array = np.arange(2345, dtype=np.float32) if comm.rank == 0 else np.zeros(2345, np.float32)
        comm.broadcast(array)
        return array, comm.broadcast_json({"step": 3} if comm.rank == 0 else None)

    for array, value in in_ranks(4, receive):
        np.testing.assert_array_equal(array, np.arange(2345))
        assert value == {"step": 3}


def test_alone_there_is_nobody_to_ask():
    array = np.arange(3)
    ALONE.broadcast(array)
    assert ALONE.sum([1.5, 2]).tolist() == [1.5, 2] and ALONE.broadcast_json("x") == "x"
    assert ALONE.gather_json([1]) == [[1]] and (ALONE.rank, ALONE.size) == (0, 1)


def test_the_failure_of_one_rank_ends_the_others_and_tells_them_why():
    def fail(comm):
        if comm.rank == 2:
            raise ArgumentError("train: no such file")
        comm.sum([1.0])

    ended = []

    def rank(comm):
        try:
            fail(comm)
        except ArgumentError as error:
            ended.append((comm.rank, str(error)))
            raise
        except PeerError as error:
            ended.append((comm.rank, str(error)))
            raise

    with pytest.raises((ArgumentError, PeerError)):
        in_ranks(3, rank)
    words = dict(ended)
    assert words[2] == "train: no such file" and len(words) == 3
    for other in (0, 1):
        assert words[other].startswith("rank 2 (process ")
        assert words[other].endswith("): train: no such file")


def test_an_error_that_all_ranks_find_is_each_one_s_own():
    def fail(comm):
        raise ArgumentError(f"B must be above 0, found by {comm.rank}")

    with pytest.raises(ArgumentError, match="found by 0"):
        in_ranks(2, fail)

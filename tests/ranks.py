"""Ranks that are threads of one process: a transport without MPI, for the tests."""

import threading
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from npgpt.parallel.communicator import CONTROL, Ranks


class Wires:
    """What is on its way between ranks: (source, to, tag) -> the bytes in order."""

    def __init__(self, size):
        self.size = size
        self.sent = defaultdict(deque)
        self.lock = threading.Lock()


class LocalTransport:
    """As npgpt.parallel.mpi.MpiTransport, but it never fails.

    A request is a place to fill, or None if it is done.
    """

    failure = ConnectionError

    def __init__(self, wires, rank):
        self.wires, self.rank, self.size = wires, rank, wires.size
        self.n_bytes = 0

    def send(self, array, to, tag):
        self.n_bytes += array.nbytes * (tag != CONTROL)
        with self.wires.lock:
            self.wires.sent[self.rank, to, tag].append(array.tobytes())

    def receive(self, array, source, tag):
        assert array.flags.c_contiguous
        return [array, source, tag]

    def done(self, requests):
        for i, request in enumerate(requests):
            if request is None:
                continue
            array, source, tag = request
            with self.wires.lock:
                waiting = self.wires.sent[source, self.rank, tag]
                if not waiting:
                    return False
                content = waiting.popleft()
            assert len(content) == array.nbytes, (len(content), array.nbytes)
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(content, np.uint8)
            requests[i] = None
        return True

    def control(self):
        for source in range(self.size):
            with self.wires.lock:
                waiting = self.wires.sent[source, self.rank, CONTROL]
                found = list(waiting)
                waiting.clear()
            for content in found:
                yield source, content

    def abort(self, status):
        raise AssertionError("a rank was lost")

    def close(self, clean):
        """Nothing is to be closed."""


def in_ranks(size, function):
    """What function(comm) returns in each of `size` ranks, a list; raises what one raises."""
    wires = Wires(size)

    def rank(number):
        with Ranks(LocalTransport(wires, number)) as comm:
            return function(comm)

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(rank, number) for number in range(size)]
    return [future.result() for future in futures]

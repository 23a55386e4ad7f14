"""What the ranks of a training run tell each other, and the end of all when one is lost.

MPI moves data only inside its calls, and a rank that computes makes none. So one thread of each
rank makes all of them: it works off jobs in the order in which they are given to it, sends a
heartbeat every second, and never waits without looking for the heartbeats of others. Every sum is
made in the order of the ranks, so that it is the same bits in every run.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
from concurrent.futures import Future

import numpy as np

from npgpt.errors import NpgptError

BEAT = 1.0  # seconds between heartbeats
SILENCE = 20.0  # seconds after which a silent rank is lost
STUCK = 1800.0  # seconds that a rank which is alive may keep others waiting
PARTING = 60.0  # seconds for all ranks to end after one of them has failed
AFTERMATH = 2.0  # seconds in which the supervisor of a rank that was killed says so, and ends all
SPIN, LONGEST_PAUSE = 100, 5e-4  # polls without a pause, and the seconds between later ones
CHUNK = 1 << 22  # bytes of a broadcast that are on their way at once
DATA, CONTROL = 0, 1  # the tags of messages


class PeerError(NpgptError):
    """Another rank has failed: what it said."""


class Alone:
    """The communicator of a process that trains by itself: rank 0 of one."""

    rank, size = 0, 1
    ranks_here = 1  # ranks on this host

    def gather(self, values):
        """The numbers of all ranks, float64 (size, len(values)), at each of them."""
        return np.array([values], np.float64)

    def gather_json(self, value):
        """What every rank has, a list, at each of them; JSON must be able to hold it."""
        return [value]

    def broadcast(self, array):
        """Fill an array of every rank with that of rank 0."""

    def broadcast_json(self, value):
        """What rank 0 has, at every rank."""
        return value

    def sum(self, values):
        """The sums over all ranks, float64 (len(values),), at each of them."""
        return self.gather(values).sum(0)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


ALONE = Alone()


class Ranks(Alone):
    """The communicator of one of several processes, over a transport: npgpt.parallel.mpi has one.

    All ranks must call its methods in the same order. `advice` is added to the sentence that a rank
    is lost: how to go on.
    """

    def __init__(self, transport, silence=SILENCE):
        self.transport, self.silence = transport, silence
        self.rank, self.size = transport.rank, transport.size
        # from the next one on, so that no rank is sent to by all others at once
        self.others = tuple((self.rank + i) % self.size for i in range(1, self.size))
        self.advice = ""
        self._jobs, self._parted, self._failure = queue.SimpleQueue(), set(), None
        self._broken_off = False  # whether a message is on its way that nobody receives
        self._beats, self._sent = [], 0.0
        self._heard = self._attended = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="communication", daemon=True)
        self._thread.start()
        me = {"host": socket.gethostname(), "process": os.getpid()}
        self.names = self.gather_json(me)
        self.ranks_here = sum(name["host"] == me["host"] for name in self.names)

    def gather(self, values):
        own = np.array(values, np.float64)
        parts = np.empty((self.size, own.size))
        parts[self.rank] = own
        self.run(self._swap, own, parts)
        return parts

    def gather_json(self, value):
        return [json.loads(each) for each in self.run(self._gather_bytes, pack(value))]

    def broadcast(self, array):
        self.run(self._pass_on, array.reshape(-1).view(np.uint8))

    def broadcast_json(self, value):
        content = pack(value) if self.rank == 0 else b""
        return json.loads(self.run(self._gather_bytes, content)[0])

    def submit(self, job, *arguments):
        """Let the communication thread call job(*arguments) -> a Future."""
        future = Future()
        self._jobs.put((future, job, arguments))
        return future

    def run(self, job, *arguments):
        """What job(*arguments) returns, or raises, in the communication thread."""
        return self.submit(job, *arguments).result()

    def wait(self, requests, peers):
        """Of a job: wait until all requests are done, which need these peers."""
        start, polls = time.monotonic(), 0
        while not self.transport.done(requests):
            self._attend()
            if self._failure is not None:
                self._broken_off = True
                raise self._failure
            if time.monotonic() - start > STUCK:
                names = ", ".join(self._name(peer) for peer in peers)
                self._end(f"nothing has come from {names} for {STUCK:.0f} s, though alive")
            time.sleep(0 if polls < SPIN else LONGEST_PAUSE)
            polls += 1

    def __exit__(self, kind, error, trace):
        """Part from the others: when all are done or, after an error, when all have been told."""
        if kind is not None and self._failure is None:
            self._failure = PeerError(told(error))  # ends what the thread is waiting for
        self.run(self._part, "" if kind is None or kind is PeerError else told(error))
        self._jobs.put(None)
        self._thread.join()

    def _serve(self):
        try:
            while self._work():
                pass
            self.transport.close(clean=not self._broken_off)
        except self.transport.failure as error:
            time.sleep(AFTERMATH)
            first = str(error).splitlines()[0]
            self._end(f"{self._name(self.rank)} does not reach the others any more: {first}")

    def _work(self):
        """Do the next job, or see to the others -> whether there may be more."""
        try:
            found = self._jobs.get(timeout=BEAT)
        except queue.Empty:
            self._attend()
            return True
        if found is None:
            return False
        future, job, arguments = found
        try:
            if self._failure is not None and job != self._part:
                raise self._failure
            future.set_result(job(*arguments))
        except self.transport.failure:
            raise
        except BaseException as error:
            future.set_exception(error)
        return True

    def _attend(self):
        """Send a heartbeat if it is time, read what has come, and see who is silent."""
        now = time.monotonic()
        beats = self._next not in self._parted and now - self._sent >= BEAT
        if beats and self.transport.done(self._beats):
            self._sent = now
            self._beats = [self.transport.send(np.zeros(0, np.uint8), self._next, CONTROL)]
        for source, content in self.transport.control():
            if source == self._previous:
                self._heard = now
            if content:
                self._parted.add(source)
                reason = json.loads(content)
                if reason and self._failure is None:
                    self._failure = PeerError(f"{self._name(source)}: {reason}")
        if now - self._attended > self.silence / 2:  # this process itself has been asleep
            self._heard = now
        self._attended = now
        if now - self._heard > self.silence and self._previous not in self._parted:
            self._end(
                f"{self._name(self._previous)} has not answered for {self.silence:.0f} s: it was"
                " stopped, hangs, or its host is out of reach"
            )

    @property
    def _next(self):
        return (self.rank + 1) % self.size

    @property
    def _previous(self):
        return (self.rank - 1) % self.size

    def _name(self, rank):
        known = self.names[rank] if hasattr(self, "names") else None
        return f"rank {rank}" + (
            f" (process {known['process']} on {known['host']})" if known else ""
        )

    def _end(self, reason):
        """End all ranks: no rank can be asked any more."""
        try:
            print(f"error: {reason}{self.advice}", file=sys.__stderr__, flush=True)
            self.transport.abort(2)
        finally:  # also without a stderr, or where MPI itself has failed
            os._exit(2)

    def _swap(self, own, parts):
        """Send own to the others, and receive theirs into their places in parts."""
        receive = [self.transport.receive(parts[rank], rank, DATA) for rank in self.others]
        send = [self.transport.send(own, rank, DATA) for rank in self.others]
        self.wait(receive + send, self.others)

    def _gather_bytes(self, content):
        """The bytes of every rank, a list, at each of them."""
        content = np.frombuffer(content, np.uint8)
        size = np.array([content.size], np.int64)
        sizes = np.full((self.size, 1), size)
        self._swap(size, sizes)
        parts = [np.empty(n, np.uint8) for n in sizes[:, 0]]
        parts[self.rank] = content
        self._swap(content, parts)
        return [part.tobytes() for part in parts]

    def _pass_on(self, content):
        """From rank to rank, in chunks, each of which goes on while the next one comes."""
        sent = []
        for start in range(0, content.size, CHUNK):
            chunk = content[start : start + CHUNK]
            if self.rank > 0:
                self.wait([self.transport.receive(chunk, self.rank - 1, DATA)], [self.rank - 1])
            if self.rank + 1 < self.size:
                sent.append(self.transport.send(chunk, self.rank + 1, DATA))
        self.wait(sent, [self.rank + 1])

    def _part(self, reason):
        """Tell the others that this rank ends, and why, and wait until all of them do."""
        others, start = self.others, time.monotonic()
        content = np.frombuffer(pack(reason), np.uint8)
        sent = [self.transport.send(content, rank, CONTROL) for rank in others]
        while not (self.transport.done(sent) and self._parted.issuperset(others)):
            self._attend()
            if (reason or self._failure) and time.monotonic() - start > PARTING:
                self._end(f"{self._failure or f'{self._name(self.rank)}: {reason}'}")
            time.sleep(LONGEST_PAUSE)


def told(error):
    """An error in the words that another rank is told."""
    if isinstance(error, NpgptError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def pack(value):
    """A value that JSON can hold as bytes."""
    return json.dumps(value).encode()

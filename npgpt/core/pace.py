"""How many threads a piece of work is done fastest with, while other programs use the cores too.

Threads wait for each other after every kernel. Where another program has one of the cores, all wait
for the thread that has none, and fewer threads are faster: with two, a step of a small model took
twice to seven times as long as with one. The result is the same with any number of threads, so it
may change from pass to pass.
"""

from statistics import median

PASSES = 3  # that are compared by their median
BUSY = 0.8  # of the processor time that all threads could have had; below it others have the cores
GAIN = 0.9  # of the time with as many threads as now, from which another number is taken
FEWER, MORE = 0, 8  # rounds of PASSES until fewer threads are tried, or more; twice as many after
LONGEST = 256  # a trial that gained nothing, up to this


class Pace:
    """Chooses the number of threads, at most `most`, for passes that are alike."""

    def __init__(self, most):
        self.n = self.most = most
        self._is_new = True
        self._tried = None  # the number that is being tried, else None
        self._usual = None  # seconds of a pass on n threads
        self._seconds, self._processor_seconds = [], 0.0
        self._take(most)

    def _take(self, n):
        self.n, self._rounds, self._fewer, self._more = n, 0, FEWER, MORE

    @property
    def threads(self):
        """How many threads the next pass is to take."""
        return self._tried or self.n

    def add(self, seconds, processor_seconds):
        """Take note of a pass: its time on the clock, and the processor time of all threads.

        The first one does not count: kernels may have been compiled in it, on one thread.
        """
        if self._is_new:
            self._is_new = False
            return
        self._seconds.append(seconds)
        self._processor_seconds += processor_seconds
        if len(self._seconds) < PASSES:
            return
        time, could_have = median(self._seconds), self.threads * sum(self._seconds)
        share = self._processor_seconds / could_have
        self._seconds, self._processor_seconds = [], 0.0
        if self._tried is None:
            self._usual = time
            self._tried = self._to_try(share)
            self._rounds += 1
            return
        if time < GAIN * self._usual:
            self._take(self._tried)
        elif self._tried < self.n:
            self._rounds, self._fewer = 0, min(max(1, 2 * self._fewer), LONGEST)
        else:
            self._rounds, self._more = 0, min(2 * self._more, LONGEST)
        self._tried = None

    def _to_try(self, share):
        """Fewer threads where these did not get the cores; now and then more; or None."""
        if self.n > 1 and share < BUSY and self._rounds >= self._fewer:
            return self.n // 2
        if self.n < self.most and self._rounds >= self._more:
            return min(2 * self.n, self.most)
        return None

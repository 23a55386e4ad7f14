"""Readers against damaged files: each is read, or refused by one of npgpt's errors.

What else can happen is counted as a fault: another exception, more than SECONDS of a core, or more
memory than the file's size and EXTRA_BYTES, which the operating system then refuses.
"""

import random
import resource
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.reliability.mutations import mutate
from bench.reliability.readers import READERS
from npgpt.errors import NpgptError

SECONDS = 2
EXTRA_BYTES = 64_000_000
LARGEST = 100_000  # bytes of a damaged file; more would only take longer
HUNG = 20  # seconds, after which a reader is interrupted
EXAMPLES = 5  # of faults that are kept
SHARED_MEMORY = Path("/dev/shm")


@dataclass
class Count:
    """What became of the inputs of a reader; faults are examples, [what happened, hex content]."""

    reader: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    unhandled: int = 0
    slow: int = 0
    slowest: float = 0.0
    faults: list = field(default_factory=list)

    def fault(self, what, content):
        if len(self.faults) < EXAMPLES:
            self.faults.append([what, content.hex()])


def hung(number, frame):
    raise TimeoutError(f"more than {HUNG} s")


def limit_memory():
    """Let this process take no more memory than it has and what a reader may take."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + EXTRA_BYTES + LARGEST,) * 2)


def fuzz(name, inputs, seed=0, readers=READERS, limited=True, until=float("inf")):
    """Give a reader so many damaged files, or as many as there is time for -> its Count.

    limited: whether to limit memory, which is for good: it takes a process of its own.
    """
    reader, rng, count = readers[name], random.Random(f"{name} {seed}"), Count(name)
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        paths = []
        for i, make in enumerate(reader.makes):
            (Path(folder) / str(i)).mkdir()
            make(Path(folder) / str(i))
            paths.append(Path(folder) / str(i) / reader.file)
        seeds = [path.read_bytes() for path in paths]
        for path in paths:
            reader.read(path)  # whole ones are read, and what they import is there
        if limited:
            limit_memory()
        while count.inputs < inputs and time.monotonic() < until:
            i = rng.randrange(len(paths))
            content = mutate(rng, seeds[i])[:LARGEST]
            paths[i].write_bytes(content)
            give(reader.read, paths[i], content, count)
    return count


def give(read, path, content, count):
    """Let a reader read a file, and count what becomes of it."""
    count.inputs += 1
    seconds = timed(read, path, content, count)
    count.slowest = max(count.slowest, seconds)
    if seconds > SECONDS:
        count.slow += 1
        count.fault(f"{seconds:.1f} s", content)


def timed(read, path, content, count):
    """Let a reader read a file, counting what becomes of it -> the seconds of a core it took.

    The clock on the wall is read first, since that is cheap; what seems slow is read again.
    """
    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, HUNG)
    start = time.perf_counter()
    try:
        read(path)
        count.read += 1
    except NpgptError:
        count.refused += 1
    except BaseException as error:
        count.unhandled += 1
        count.fault(f"{type(error).__name__}: {error}"[:300], content)
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seconds = time.perf_counter() - start
    if seconds > SECONDS:
        start = time.process_time()
        with suppress(NpgptError):
            read(path)
        seconds = time.process_time() - start
    return seconds


def in_a_process(arguments):
    """fuzz(*arguments) as a dict, for a pool of processes."""
    return asdict(fuzz(*arguments))

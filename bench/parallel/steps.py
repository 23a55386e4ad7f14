"""Training steps of one rank among others, timed: run by mpiexec, rank 0 prints JSON.

    mpiexec -n 2 python -m bench.parallel.steps '{"B": 4, "T": 64, "threads": 1, "steps": 3}'

Other keys are settings of the run, and `model`: the sizes of the GPT2Config. Of each step: the
seconds, and those of them in which the rank waited for others, `exposed`. `copy`: the seconds in
which a thread of each rank at once copies the bytes that a rank receives in a step.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from npgpt import GPT2, GPT2Config
from npgpt.core.threads import set_threads
from npgpt.data.token_files import write_tokens
from npgpt.data.training_data import TrainingData
from npgpt.parallel.exchange import WIRES
from npgpt.parallel.start import communicator
from npgpt.training.settings import make_settings
from npgpt.training.train import for_ranks
from npgpt.training.trainer import Trainer


class TimedFuture:
    """A future whose waiting is counted."""

    def __init__(self, future, waited):
        self.future, self.waited = future, waited

    def result(self):
        start = time.perf_counter()
        try:
            return self.future.result()
        finally:
            self.waited.append(time.perf_counter() - start)


def time_waits(comm):
    """Let a communicator's futures tell how long they were waited for -> the list they fill."""
    waited, submit = [], getattr(comm, "submit", None)
    if submit is not None:
        comm.submit = lambda *arguments: TimedFuture(submit(*arguments), waited)
    return waited


def received_bytes(n_params, size, s):
    """What a rank receives in a step: gradients, and in float32 parameters or gradients again."""
    share = n_params * (size - 1) / size
    wire = WIRES[s.wire].dtype.itemsize
    return round(share * (wire + (4 if s.shard_optimizer else wire)))


def copy_seconds(comm, n_bytes):
    """The seconds in which each rank copies so many bytes, all at once."""
    source = np.ones(max(1, n_bytes), np.uint8)
    target, seconds = np.zeros_like(source), []
    for _ in range(4):
        comm.sum([0.0])
        start = time.perf_counter()
        target[:] = source
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measure(comm, model, threads, steps, **settings):
    """Train for some steps, the first of which does not count -> a dict."""
    set_threads(threads)
    rng = np.random.default_rng(0)
    config = GPT2Config(**model)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "tokens.bin")
        write_tokens(path, rng.integers(0, config.vocab_size, 300_000))
        s = for_ranks(make_settings({"train": path, "order": "random", **settings}), comm.size)
        trainer = Trainer(GPT2(config), s, TrainingData(path), comm)
        waited, seconds, exposed = time_waits(comm), [], []
        for _ in range(steps + 1):
            comm.sum([0.0])
            waited.clear()
            start = time.perf_counter()
            trainer.update()
            seconds.append(time.perf_counter() - start)
            exposed.append(sum(waited))
    n_bytes = received_bytes(trainer.model.params.flat.size, comm.size, s)
    copy = copy_seconds(comm, n_bytes) if comm.size > 1 else 0.0
    return {"seconds": seconds[1:], "exposed": exposed[1:], "bytes": n_bytes, "copy": copy}


def main():
    """Measure, and print the result at rank 0."""
    with communicator() as comm:
        result = measure(comm, **{"model": {}, **json.loads(sys.argv[1])})
        if comm.rank == 0:
            print(json.dumps(result))


if __name__ == "__main__":
    main()

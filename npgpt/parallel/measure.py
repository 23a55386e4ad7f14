"""The figures of this machine that a plan is made from, all ranks of a node at work at once."""

import dataclasses
import multiprocessing
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from npgpt.core.threads import set_threads
from npgpt.errors import ArgumentError
from npgpt.model.gpt2 import GPT2
from npgpt.parallel.plan import Machine

REPEATS = 3
COPIED = 1 << 27  # bytes


def measure_machine(config, B, T, ranks, threads, precision="fp32", recompute=False):
    """The Machine of a rank with micro-batches of B sequences of T tokens; the median of all ranks.

    Models of one and of three blocks tell what a block takes, so the whole model need not fit.
    """
    arguments = (config, B, T, threads, precision, recompute)
    if ranks == 1:
        return measure_rank(*arguments)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(ranks)
    try:
        with ProcessPoolExecutor(ranks, context, initializer, (barrier,)) as pool:
            found = [*pool.map(measure_rank, *zip(*[arguments] * ranks, strict=True))]
    except (BrokenProcessPool, threading.BrokenBarrierError, MemoryError) as error:
        raise ArgumentError(
            f"a step of {B} sequences of {T} tokens cannot be measured in {ranks} processes at"
            " once: one of them has ended, perhaps for want of memory"
        ) from error
    fields = [field.name for field in dataclasses.fields(Machine)]
    return Machine(*(statistics.median(getattr(one, name) for one in found) for name in fields))


_barrier = None


def initializer(barrier):
    """In a process of the pool: remember what lets all begin at once."""
    global _barrier
    _barrier = barrier


def median_seconds(function):
    """The median of some calls, begun at once by all ranks, after one that does not count."""
    function()
    seconds = []
    for _ in range(REPEATS):
        if _barrier is not None:
            _barrier.wait()
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_rank(config, B, T, threads, precision, recompute):
    """As `measured`; where it fails, the others do not wait for it."""
    try:
        return measured(config, B, T, threads, precision, recompute)
    except BaseException:
        if _barrier is not None:
            _barrier.abort()
        raise


def measured(config, B, T, threads, precision, recompute):
    """The Machine of this process."""
    set_threads(threads)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, config.vocab_size, (2, B, T))
    forward, both, update = {}, {}, 0.0
    for n_layer in (1, 3):
        sizes = dataclasses.replace(config, n_layer=n_layer)
        model = GPT2(sizes, precision=precision, recompute=recompute)
        forward[n_layer] = median_seconds(lambda model=model: model.loss(x, y))
        both[n_layer] = median_seconds(lambda model=model: model.forward_backward(x, y))
        if n_layer == 3:
            seconds = median_seconds(lambda model=model: model.update(1e-4, clip=1.0))
            update = seconds / model.params.flat.size
        del model
    block_forward = max(0.0, forward[3] - forward[1]) / 2
    block = max(block_forward, (both[3] - both[1]) / 2)
    source = np.ones(COPIED, np.uint8)
    target = np.zeros_like(source)
    copy = median_seconds(lambda: np.copyto(target, source)) / COPIED
    return Machine(
        block_forward, block - block_forward, max(0.0, both[1] - block), update, copy, threads
    )

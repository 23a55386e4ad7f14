"""The number of threads that the kernels use, and where they cannot be used."""

import os
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from functools import lru_cache

from npgpt.core.pace import Pace
from npgpt.errors import ArgumentError

FLOPS_PER_THREAD = 250e6  # flops that are worth a thread, some milliseconds of a core
FLOPS_PER_BYTE = 10  # flops that a core does in the time of moving a byte

_count: int | None = None  # as set_threads was told
_found: int | None = None  # without that: as the environment or the machine has it
_sharers = 1  # processes that share the cores of this one
_forked = False  # whether this process was forked from one that had started Numba's threads
# Numba's own pool of threads, where there is neither TBB nor OpenMP, ends the process if two
# Python threads use it at once.
_one_at_a_time = threading.RLock()


def set_threads(n: int) -> None:
    """Let every model compute with n threads, in this process and from now on.

    Without it they are as many as OMP_NUM_THREADS says or, without that, as there are physical
    cores that this process may use, also by the quota of a container. NUMBA_NUM_THREADS is an
    upper limit to all of these. Small models take fewer, and so does any model while other programs
    keep the cores busy. The result is the same, bit for bit, for every number. The NumPy layers
    take no notice, nor do products by NumPy's BLAS (NPGPT_PRODUCTS=blas, and by default on Apple's
    chips): their threads are NumPy's own, and their last digits may depend on how many these are.
    Raises ArgumentError unless n is an integer of at least 1.
    """
    global _count
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"the number of threads must be an integer of at least 1, not {n!r}")
    _count = n


def get_threads() -> int:
    """The number of threads that a model computes with."""
    from numba import config

    return max(1, min(_count or _default(), config.NUMBA_NUM_THREADS))


def share_cores(n):
    """Let n processes, of which this is one, share the physical cores that all of them may use.

    It counts where neither set_threads nor OMP_NUM_THREADS says how many threads there are.
    """
    global _found, _sharers
    _found, _sharers = None, n


def physical_cores():
    """The number of physical cores that this process may use."""
    from loky import cpu_count

    return cpu_count(only_physical_cores=True)


def _default():
    global _found
    if _found is None:
        try:
            _found = int(os.environ["OMP_NUM_THREADS"].split(",")[0])
        except (KeyError, ValueError):
            _found = max(1, physical_cores() // _sharers)
    return _found


@contextmanager
def threads(flops=float("inf")):
    """Context in which Numba's kernels run on get_threads() threads, fewer for few flops.

    Threads wait for each other after every kernel, which takes longer than the kernels of a very
    small model. While other programs use the cores, Pace finds the number that is fastest.
    """
    from numba import get_num_threads, set_num_threads

    if _forked:
        raise ArgumentError(
            "this process was forked from one that had used npgpt's kernels, whose threads are not"
            " in it: start it by multiprocessing's method spawn or forkserver"
        )
    with _one_at_a_time if not pool_is_shared() else nullcontext():
        before, most = get_num_threads(), int(max(1, min(get_threads(), flops / FLOPS_PER_THREAD)))
        pace = pace_of(most, flops) if most > 1 else None
        set_num_threads(pace.threads if pace else 1)
        start, used = time.perf_counter(), time.process_time() if pace else 0.0
        try:
            yield
            if pace:
                pace.add(time.perf_counter() - start, time.process_time() - used)
        finally:
            set_num_threads(before)


@lru_cache(maxsize=64)
def pace_of(most, flops):
    """The Pace of passes of so many flops, on at most so many threads."""
    return Pace(most)


def pool_is_shared():
    """Whether several Python threads may use Numba's threads at once; unknown counts as no."""
    from numba import threading_layer

    try:
        return threading_layer() in ("tbb", "omp")
    except ValueError:  # no kernel has run yet
        return False


def _remember_fork():
    global _forked, _one_at_a_time
    _one_at_a_time = threading.RLock()  # another thread may have held it, and is not here
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    _forked = _forked or (parallel is not None and parallel._is_initialized)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember_fork)

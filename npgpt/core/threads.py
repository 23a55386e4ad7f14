"""The number of threads that the kernels use."""

import os
from contextlib import contextmanager

from npgpt.errors import ArgumentError

FLOPS_PER_THREAD = 250e6  # flops that are worth a thread, some milliseconds of a core
FLOPS_PER_BYTE = 10  # flops that a core does in the time of moving a byte

_count: int | None = None


def set_threads(n: int) -> None:
    """Let every model compute with n threads, in this process and from now on.

    Without it they are as many as OMP_NUM_THREADS says or, without that, as there are physical
    cores that this process may use, also by the quota of a container. NUMBA_NUM_THREADS is an
    upper limit to all of these, and small models take fewer. The result is the same, bit for bit,
    for every n. The NumPy layers take no notice: their threads are NumPy's own. Raises
    ArgumentError unless n is an integer of at least 1.
    """
    global _count
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"the number of threads must be an integer of at least 1, not {n!r}")
    _count = n


def get_threads() -> int:
    """The number of threads that a model computes with."""
    from numba import config

    return max(1, min(_count or _default(), config.NUMBA_NUM_THREADS))


def _default():
    global _count
    try:
        _count = int(os.environ["OMP_NUM_THREADS"].split(",")[0])
    except (KeyError, ValueError):
        from loky import cpu_count

        _count = cpu_count(only_physical_cores=True)
    return _count


@contextmanager
def threads(flops=float("inf")):
    """Context in which Numba's kernels run on get_threads() threads, fewer for few flops.

    Threads wait for each other after every kernel, and on a machine that others use too that takes
    far longer than the kernels of a small model.
    """
    from numba import get_num_threads, set_num_threads

    before = get_num_threads()
    set_num_threads(int(max(1, min(get_threads(), flops / FLOPS_PER_THREAD))))
    try:
        yield
    finally:
        set_num_threads(before)

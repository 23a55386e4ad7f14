"""Memory that is used again: what one step has freed, the next one takes.

The operating system clears the pages of new memory one by one at their first touch, which costs a
layer more than its arithmetic. So an array made here gives its memory back to a list of idle
blocks as soon as nothing refers to it, and the next array that fits begins on the same pages.
"""

import contextlib
import math
import mmap
import weakref
from collections import defaultdict, deque

import numpy as np

MIN_BYTES = 1 << 16  # below it NumPy's own allocation is as quick
MIN_IDLE_BYTES = 1 << 26  # always kept in idle blocks: a forward pass holds hardly any array

# size in bytes -> the blocks that no array uses
idle: defaultdict[int, list[mmap.mmap]] = defaultdict(list)
# id of a weak reference -> the reference and the block that its array uses
in_use: dict[int, tuple[weakref.ref, mmap.mmap]] = {}
# The references whose arrays are gone. Their callback is this deque's append, not Python code: a
# Ctrl-C that came while that ran would be reported and lost.
released: deque[weakref.ref] = deque()


def empty(shape, dtype):
    """As np.empty, on a block that is used again once the array and all views of it are gone."""
    dtype = np.dtype(dtype)
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size < MIN_BYTES:
        return np.empty(shape, dtype)
    take_back()
    block = idle_block(size)
    if block is None:
        # Other sizes are wanted than before: a new batch's.
        if idle_bytes() > max(MIN_IDLE_BYTES, used_bytes()):
            free()
        block = new_block(size)
    array = np.frombuffer(block, dtype, count)  # the base of every view: the last to go
    reference = weakref.ref(array, released.append)
    in_use[id(reference)] = reference, block
    return array.reshape(shape)


def idle_block(size):
    """Take the smallest idle block that fits and is at most half as large again; None without one.

    So attention's gradients (3C) can take the memory of the MLP's (4C).
    """
    with contextlib.suppress(IndexError):
        return idle[size].pop()
    for n in sorted(n for n in list(idle) if size < n <= size * 3 // 2):
        with contextlib.suppress(IndexError):  # none is idle, or another thread has just taken it
            return idle[n].pop()
    return None


def new_block(size):
    """Memory from the operating system, in huge pages where there are some."""
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def take_back():
    """Move the blocks of arrays that are gone to the idle ones."""
    with contextlib.suppress(IndexError):  # of an empty deque
        while True:
            _, block = in_use.pop(id(released.popleft()))
            idle[len(block)].append(block)


def idle_bytes():
    take_back()
    return sum(size * len(blocks) for size, blocks in list(idle.items()))


def used_bytes():
    take_back()
    return sum(len(block) for _, block in list(in_use.values()))


def free():
    """Return the idle blocks to the operating system."""
    take_back()
    idle.clear()

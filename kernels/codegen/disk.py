"""What has been compiled of a kernel, on disk, for several processes at once.

Numba's own cache has two faults that matter here. It looks at the file that a kernel is in, not at
those of the helpers it calls. And processes that compile at the same time, such as MPI's ranks, do
the same work twice, and can write one's machine code under the other's name.
"""

import hashlib
import itertools
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from numba.core.caching import FunctionCache, IndexDataCacheFile

from npgpt import layers

KERNELS = Path(__file__).parents[1]
SOURCES = sorted([*KERNELS.rglob("*.py"), *Path(layers.__file__).parent.glob("*.py")])
STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()
PATIENCE = 60.0  # seconds to wait for another process, which may have been stopped


class DiskCache(FunctionCache):
    """A kernel's compiled versions: one process makes each, and the others wait for it."""

    patience = PATIENCE  # of this process, for all kernels

    def __init__(self, kernel):
        """Raises RuntimeError where there is no folder that can be written."""
        super().__init__(kernel)
        stamp = self._cache_file._source_stamp, STAMP
        self._cache_file = DataFirst(self.cache_path, self._impl.filename_base, stamp)
        self._lock = None  # while a version is being compiled

    def is_empty(self):
        """Whether nothing is there that is valid for these sources."""
        with self._guard_against_spurious_io_errors():
            return not self._cache_file._load_index()
        return False

    def load_overload(self, sig, target_context):
        """What is there for a signature; None: nothing, and the lock is held until `unlock`."""
        found = super().load_overload(sig, target_context)
        if found is None:
            self._take_lock()
            found = super().load_overload(sig, target_context)
            if found is not None:
                self.unlock()
        return found

    def save_overload(self, sig, data):
        """Keep what has been compiled for a signature, and let the others go on."""
        with suppress(OSError):  # where the disk is full, the next process compiles it again
            super().save_overload(sig, data)
        self.unlock()

    def _take_lock(self):
        """Wait for the kernel's lock; go on without it where it cannot be had."""
        try:
            self._impl.locator.ensure_cache_path()
            self._lock = FileLock(f"{self._cache_file._index_path}.lock", thread_local=False)
            with warnings.catch_warnings():  # that the disk has no locks
                warnings.simplefilter("ignore")
                self._lock.acquire(timeout=DiskCache.patience)
        except Timeout:  # not again for each kernel: some disks without locks look like this
            DiskCache.patience = 0
        except (OSError, NotImplementedError):  # a disk without locks, or that cannot be written
            pass

    def unlock(self):
        """Let the other processes go on."""
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None


class DataFirst(IndexDataCacheFile):
    """Numba's files, with the index written after the data; what is damaged is not there.

    Numba writes it before: a process that reads between the two finds what an older version of the
    sources has left under that name.
    """

    def _load_index(self):
        try:
            return super()._load_index()
        except Exception:  # reading a damaged file can raise anything
            return {}

    def load(self, key):
        """What was kept under a key, or None."""
        try:
            return super().load(key)
        except Exception:  # as in _load_index
            return None

    def save(self, key, data):
        """Keep data under a key."""
        overloads = self._load_index()
        taken = set(overloads.values())
        free = (self._data_name(i) for i in itertools.count(1))
        name = overloads.get(key) or next(name for name in free if name not in taken)
        self._save_data(name, data)
        self._save_index({**overloads, key: name})

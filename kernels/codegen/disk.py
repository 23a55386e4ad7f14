"""What has been compiled of a kernel, on disk, for several processes at once.

Numba's own cache has two faults that matter here. It looks at the file that a kernel is in, not at
those of the helpers it calls. And processes that compile at the same time, such as MPI's ranks, do
the same work twice, and can write one's machine code under the other's name.
"""

import hashlib
import itertools
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from numba.core.caching import FunctionCache, IndexDataCacheFile

from npgpt import layers

KERNELS = Path(__file__).parents[1]
SOURCES = sorted([*KERNELS.rglob("*.py"), *Path(layers.__file__).parent.glob("*.py")])
STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()
PATIENCE = 60.0  # seconds to wait for another process, which may have been stopped


class DiskCache(FunctionCache):
    """A kernel's compiled versions: one process makes each, and the others wait for it."""

    def __init__(self, kernel):
        """Raises RuntimeError where there is no folder that can be written."""
        super().__init__(kernel)
        stamp = self._cache_file._source_stamp, STAMP
        self._cache_file = DataFirst(self.cache_path, self._impl.filename_base, stamp)
        self._lock = None  # while a version is being compiled

    def is_empty(self):
        """Whether nothing is there that is valid for these sources."""
        return not self._cache_file._load_index()

    def load_overload(self, sig, target_context):
        """What is there for a signature; None: nothing, and save_overload must follow."""
        found = super().load_overload(sig, target_context)
        if found is None:
            with suppress(OSError, NotImplementedError):  # Timeout is one; a disk without locks
                self._impl.locator.ensure_cache_path()
                self._unlock()  # of an attempt before that was interrupted
                self._lock = FileLock(f"{self._cache_file._index_path}.lock", thread_local=False)
                self._lock.acquire(timeout=PATIENCE)
            found = super().load_overload(sig, target_context)
            if found is not None:
                self._unlock()
        return found

    def save_overload(self, sig, data):
        """Keep what has been compiled for a signature, and let the others go on."""
        with suppress(OSError):  # where the disk is full, the next process compiles it again
            super().save_overload(sig, data)
        self._unlock()

    def _unlock(self):
        """Let the other processes go on."""
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None


class DataFirst(IndexDataCacheFile):
    """Numba's files, with the index written after the data.

    Numba writes it before: a process that reads between the two finds what an older version of the
    sources has left under that name.
    """

    def save(self, key, data):
        """Keep data under a key."""
        overloads = self._load_index()
        taken = set(overloads.values())
        free = (self._data_name(i) for i in itertools.count(1))
        name = overloads.get(key) or next(name for name in free if name not in taken)
        self._save_data(name, data)
        self._save_index({**overloads, key: name})

"""What is compiled is kept on disk once, whatever several processes do at the same time."""

import errno
import os
import threading

import numba
import pytest
from numba import types

from npgpt.kernels.codegen import disk
from npgpt.kernels.codegen.disk import DataFirst, DiskCache
from npgpt.kernels.codegen.jit import jit, missing_on_disk

SIGNATURE = (types.int64,)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def double(x):
    return x + x


@pytest.fixture
def compiled():
    """A kernel compiled without a cache -> its result, and what loading it takes."""
    kernel = numba.njit(double)
    kernel.compile(SIGNATURE)
    return kernel.overloads[SIGNATURE], kernel.targetctx


def test_a_second_process_waits_for_what_the_first_one_compiles(compiled):
    result, context = compiled
    first, second = DiskCache(double), DiskCache(double)  # each has a lock of its own
    assert first.load_overload(SIGNATURE, context) is None
    found = []
    other = threading.Thread(target=lambda: found.append(second.load_overload(SIGNATURE, context)))
    other.start()
    other.join(0.3)
    assert other.is_alive() and not found
    first.save_overload(SIGNATURE, result)
    other.join(10)
    assert found[0].signature == result.signature
    assert first.load_overload(SIGNATURE, context) is not None  # and second holds no lock
    assert first._lock is None and second._lock is None


def test_it_does_not_wait_for_ever(compiled, monkeypatch):
    result, context = compiled
    monkeypatch.setattr(DiskCache, "patience", 0.1)
    first, second = DiskCache(double), DiskCache(double)
    assert first.load_overload(SIGNATURE, context) is None
    assert second.load_overload(SIGNATURE, context) is None  # so it compiles, too
    assert DiskCache.patience == 0  # and does not wait for the next kernel
    second.save_overload(SIGNATURE, result)
    assert first.load_overload(SIGNATURE, context) is not None


def test_an_attempt_that_was_interrupted_holds_nothing_after_the_next(compiled):
    result, context = compiled
    first = DiskCache(double)
    assert first.load_overload(SIGNATURE, context) is None
    assert first.load_overload(SIGNATURE, context) is None  # again, after Ctrl-C
    first.save_overload(SIGNATURE, result)
    assert first._lock is None


def test_a_compilation_that_fails_holds_nothing():
    kernel = jit(lambda x: x + "a")
    with pytest.raises(numba.TypingError):
        kernel(1)
    assert kernel._cache._lock is None


def test_a_disk_without_locks_is_no_hindrance(compiled, monkeypatch):
    result, context = compiled

    def no_locks(self, timeout):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(disk.FileLock, "acquire", no_locks)
    cache = DiskCache(double)
    assert cache.load_overload(SIGNATURE, context) is None
    cache.save_overload(SIGNATURE, result)
    assert cache.load_overload(SIGNATURE, context) is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_compiles():
    kernel = jit(double)
    child = os.fork()
    if not child:
        os._exit(0 if kernel(2) == 4 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_file_is_compiled_anew(folder, suffix, content):
    jit(double)(2)
    (path,) = folder.rglob(f"*.{suffix}")
    path.write_bytes(content)
    assert jit(double)(2) == 4 and path.read_bytes() != content


def test_what_the_index_names_is_there_already(folder, monkeypatch):
    written = []
    monkeypatch.setattr(DataFirst, "_save_data", lambda self, name, data: written.append(name))
    monkeypatch.setattr(DataFirst, "_save_index", lambda self, index: written.append(index))
    DataFirst(str(folder), "kernel", "stamp").save("key", "data")
    assert written == ["kernel.1.nbc", {"key": "kernel.1.nbc"}]


def test_each_key_has_data_of_its_own(folder):
    files = DataFirst(str(folder), "kernel", "stamp")
    for key, data in (("one", 1), ("two", 2), ("one", 3)):
        files.save(key, data)
    assert (files.load("one"), files.load("two")) == (3, 2)
    assert DataFirst(str(folder), "kernel", "another stamp").load("one") is None


def test_a_full_disk_keeps_nothing_and_stops_nothing(monkeypatch):
    def full(self, name, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DataFirst, "_save_data", full)
    kernel = jit(double)
    assert kernel(2) == 4 and missing_on_disk(kernel) and kernel._cache._lock is None


def test_a_kernel_is_missing_on_disk_until_it_is_compiled(monkeypatch):
    kernel = jit(double)
    assert missing_on_disk(kernel) and missing_on_disk(double)
    with monkeypatch.context() as patched:
        patched.setattr(numba.config, "DISABLE_JIT", True)
        assert not missing_on_disk(double)  # for it will not be compiled
    kernel(2)
    assert not missing_on_disk(kernel) and not missing_on_disk(double)

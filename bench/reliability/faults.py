"""Writers while the operating system fails: at each of their calls, once and from then on.

After a fault a reader must find what was there before, or what was to be written, whole.
"""

import builtins
import errno
import io
import os
import resource
import signal
import tempfile
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from unittest import mock

from bench.reliability.writers import WRITERS
from npgpt.errors import FileError, NpgptError
from npgpt.files import PARTIAL

CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "chmod", "open", "stat")
OF_FILES = ("write", "flush")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
MOST = 10_000  # calls of a writer


class Faults:
    """Fails the call `at`, counted from 0, of those that pass through it, or all from there on."""

    def __init__(self, at, number, lasting):
        self.at, self.number, self.lasting = at, number, lasting
        self.seen = 0
        self.happened = False

    def call(self, function, *arguments, **options):
        """Do what is asked for, or fail."""
        here, self.seen = self.seen, self.seen + 1
        if here == self.at or (self.lasting and here > self.at):
            self.happened = True
            raise OSError(self.number, os.strerror(self.number))
        return function(*arguments, **options)


class FailingFile:
    """A file whose OF_FILES calls may fail; close() closes it even then, as the system does."""

    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def __getattr__(self, name):
        value = getattr(self._file, name)
        if name not in OF_FILES:
            return value
        return lambda *arguments: self._faults.call(value, *arguments)

    def close(self):
        try:
            self._faults.call(lambda: None)
        finally:
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def __iter__(self):
        return iter(self._file)


@contextmanager
def failing(faults):
    """Context in which the calls of the writers pass through faults."""

    def opened(path, mode="r", *arguments, **options):
        file = faults.call(builtin_open, path, mode, *arguments, **options)
        return FailingFile(file, faults) if set(mode) & set("wax+") else file

    def passing(function):
        return lambda *arguments, **options: faults.call(function, *arguments, **options)

    builtin_open = builtins.open
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(builtins, "open", opened))
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, passing(getattr(os, name))))
        yield


@contextmanager
def disk_of(size):
    """Context in which the system lets no file grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def attempt(writer, context):
    """Replace the old by the new in this context -> what is found then, and what was raised."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        writer.write(folder, 1)
        raised = None
        try:
            with context, redirect_stdout(io.StringIO()):  # a file, it would be too small
                writer.write(folder, 2)
        except NpgptError as error:
            raised = error
        try:
            found = writer.read(folder)
        except FileError:
            found = None  # which is allowed where no name can be given back
        left = sorted(str(path) for path in folder.rglob(f"*{PARTIAL}"))
    return found, raised, left


def inject(name, writers=WRITERS, errors=ERRORS):
    """Every fault in every call of a writer -> a dict of counts; raises where one is not survived.

    set aside: from the very call on that would give a name back, every call fails; the old file is
    there under a partial name, an error was raised, and a reader gets one.
    Survived: the old is found where an error was raised before the new one had its name, and else
    the new one; nothing partial is left by a single fault, but for one in the cleaning up.
    """
    writer, counts = writers[name], {"old": 0, "new": 0, "set aside": 0}
    for lasting in (False, True):
        for number in errors:
            for at in range(MOST):
                faults = Faults(at, number, lasting)
                found, raised, left = attempt(writer, failing(faults))
                if not faults.happened:
                    assert found == 2 and raised is None
                    break
                where = f"{name}: call {at}, {errno.errorcode[number]}, lasting: {lasting}"
                if lasting and found is None and raised and any(".old" in each for each in left):
                    counts["set aside"] += 1
                    continue
                cleaning_failed = lasting or raised is None
                check(where, found, raised, [] if cleaning_failed else left)
                counts["old" if found == 1 else "new"] += 1
    sizes = full_disks(name, writer)
    return {"writer": name, "faults": sum(counts.values()), **counts, "full disks": sizes}


def full_disks(name, writer):
    """A disk that is full after every so many bytes -> how many sizes were tried."""
    for tried, size in enumerate(range(0, 1 << 20, 97)):
        found, raised, left = attempt(writer, disk_of(size))
        if raised is None:
            assert found == 2
            return tried
        check(f"{name}: {size} bytes of disk", found, raised, left)
    raise AssertionError(f"{name}: no size was enough")


def check(where, found, raised, left):
    """Raise AssertionError where a fault was not survived."""
    assert found in (1, 2), f"{where}: {found} is found"
    assert found == 2 or raised is not None, f"{where}: the old is found, and nothing was said"
    assert "\n" not in str(raised or ""), f"{where}: more than a sentence: {raised}"
    assert not left, f"{where}: {left} is left"

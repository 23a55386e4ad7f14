"""File access with one-sentence errors and atomic writes; the cache of downloads."""

import glob
import itertools
import json
import os
import re
import shutil
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from npgpt.errors import FileError
from npgpt.wording import counted

HEADER_WORDS = 256
HEADER_BYTES = 4 * HEADER_WORDS
LARGEST_JSON = 1 << 24  # bytes
URL = re.compile(r"(https?|ftp|s3|gs|hf):/+(.*)", re.DOTALL | re.IGNORECASE)
PARTIAL = ".partial"  # ends the name of what is not complete yet
OLD = f".old{PARTIAL}"  # ends the name of what is being replaced
ATTEMPTS = itertools.count()  # to write, in this process


@contextmanager
def open_for_reading(path):
    """Open a regular file for reading -> file, size in bytes."""
    check_path(path)
    try:
        mode = os.stat(path).st_mode
        check_regular(mode, path)  # opening a pipe would block
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error


def check_regular(mode, path):
    """Raise FileError unless this mode, of os.stat, is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise FileError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}")


def check_path(path):
    """Raise FileError for a URL, and for a path with a NUL or half a character in it."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise FileError(f"{os.fspath(path)!r}: not a path that a file can have")
    if url := URL.match(os.fsdecode(path)):  # Path makes one slash of two
        raise FileError(
            f"{url[1]}://{url[2]}: is a URL, not a file: download it first, and name the file"
        )


def read_json(path, largest=LARGEST_JSON):
    """Read a JSON file of up to `largest` bytes, an object -> a dict."""
    with open_for_reading(path) as (file, size):
        if size > largest:
            raise FileError(f"{path}: {counted(size, 'byte')}, but {largest:,} are the most")
        try:
            content = json.loads(file.read())
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
            raise FileError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FileError(f"{path}: must hold a JSON object")
    return content


def read_text(path):
    """Read a UTF-8 file -> str."""
    with open_for_reading(path) as (file, _):
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(
                f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8"
            ) from error


@contextmanager
def atomic_write(path, companions=(), begun=None):
    """Open a file for writing; it gets its name only once completely written and synced.

    begun: the path of a file in the same folder that already holds what is to be written. It is
    opened for changes, from its beginning, and becomes the file at path.

    companions are files that are replaced together with it: {path: content, None for no file}. No
    system renames several files at once. So, where a companion changes, the old file loses its name
    first and the new one gets it last: whatever ends the process in between, a reader finds no file
    then, and never a new one with an old companion. The old one is kept under a partial name until
    a later write succeeds.
    """
    try:
        main = Replacement(path, begun=begun)
        others = [Replacement(*companion) for companion in dict(companions).items()]
        with ExitStack() as at_the_end:
            for each in (main, *others):
                at_the_end.callback(each.remove_partial)
            for other in others:
                if other.content is not None:
                    with other.writing() as file:
                        file.write(other.content)
            with main.writing() as file:
                yield file
            with locked(main.target.parent):
                replace_together(main, [other for other in others if other.changes()])
        for each in (main, *others):
            sweep(each.target)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error


class Replacement:
    """A partial file that is to replace the one at path; content is what to write, if known.

    begun: the partial file where there is one already, see atomic_write.
    """

    def __init__(self, path, content=None, begun=None):
        check_path(path)
        self.target, self.content = Path(os.path.realpath(path)), content
        name = partial_name(self.target)
        self.partial = begun or self.target.with_name(f"{name}{PARTIAL}")
        self.mode_to_open = "wb" if begun is None else "r+b"
        self.old = self.target.with_name(f"{name}{OLD}")
        if (mode := self.mode()) is not None:
            check_regular(mode, path)

    def mode(self):
        """The mode of the file that there is, or None."""
        try:
            return self.target.stat().st_mode
        except FileNotFoundError:
            return None

    def changes(self):
        """Whether the file that there is has another content, or there is one and it goes."""
        before = self.target.read_bytes() if self.target.exists() else None
        return before != self.content

    @contextmanager
    def writing(self):
        """Open the partial file for writing, sync it, and give it the mode of the old one."""
        with open(self.partial, self.mode_to_open) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if (mode := self.mode()) is not None:
            os.chmod(self.partial, stat.S_IMODE(mode))

    def remove_partial(self):
        """Remove what is left of an attempt."""
        with suppress(OSError):
            self.partial.unlink()


def replace_together(main, others):
    """Put the partial files in the place of the old ones, or leave all as they were."""
    if not others:
        os.replace(main.partial, main.target)
        return
    with ExitStack() as undo:
        for each in (main, *others):
            if each.target.exists():
                os.rename(each.target, each.old)
                undo.callback(os.replace, each.old, each.target)
        for each in (*others, main):
            if each.partial.exists():
                undo.callback(each.target.unlink, missing_ok=True)
                os.rename(each.partial, each.target)
        undo.pop_all()
    for each in (main, *others):
        with suppress(OSError):
            each.old.unlink()


@contextmanager
def locked(folder):
    """Let one thread of one process at a time replace files of a folder, where there is flock."""
    try:
        import fcntl
    except ImportError:  # on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def partial_folder(target):
    """Make a folder beside target for what is not complete yet; it is removed at the end."""
    folder = target.with_name(f"{partial_name(target)}{PARTIAL}")
    try:
        if folder.exists():  # of a process that had the same number
            shutil.rmtree(folder)
        folder.mkdir()
    except OSError as error:
        raise FileError(f"{folder}: cannot be created: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        sweep(target)


def partial_name(target):
    """What the names of the partial files of a new attempt begin with."""
    return f"{target.name}.{os.getpid()}.{next(ATTEMPTS)}"


def sweep(target, old=True):
    """Remove the partial files and folders of this target whose process was killed.

    old: also the files that were being replaced, of which there is no other copy before a new one.
    """
    for path in target.parent.glob(f"{glob.escape(target.name)}.*{PARTIAL}"):
        process = path.name.removeprefix(f"{target.name}.").split(".")[0]
        if not old and path.name.endswith(OLD):
            continue
        if process.isdecimal() and not is_running(int(process)):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_running(process):
    """Whether there is a process of this number. Never on Windows: open files cannot be removed."""
    if os.name == "nt":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that no process has
        pass
    return True


def read_header(file, size, path, kind, magic, n_used):
    """Read the 256-word header of an llm.c file -> its first n_used words, as ints.

    The first must be the magic, and all the others must be 0.
    """
    if size < HEADER_BYTES:
        raise FileError(
            f"{path}: not a {kind} ({counted(size, 'byte')}, the header alone is {HEADER_BYTES:,})"
        )
    words = np.frombuffer(file.read(HEADER_BYTES), "<i4").tolist()
    if words[0] != magic:
        raise FileError(f"{path}: not a {kind} (magic {words[0]}, expected {magic})")
    if any(words[n_used:]):
        at = next(i for i in range(n_used, HEADER_WORDS) if words[i])
        raise FileError(f"{path}: the header is damaged: word {at} must be 0, not {words[at]}")
    return words[:n_used]


def pack_header(*words):
    """A header with these first words, as bytes."""
    return np.array([*words, *[0] * (HEADER_WORDS - len(words))], "<i4").tobytes()


def read_into(file, out, path):
    """Fill the contiguous array out from the file."""
    if out.size and file.readinto(memoryview(out).cast("B")) != out.nbytes:
        raise FileError(f"{path}: ended while it was being read")


def check_size(path, size, expected, what):
    """Raise FileError unless the file has the size that its header implies."""
    if size != expected:
        fault = "truncated" if size < expected else "too long"
        raise FileError(f"{path}: {fault} ({counted(size, 'byte')}, {what} takes {expected:,})")


def cache_folder():
    """The folder that downloads are kept in: NPGPT_CACHE, or npgpt's in the user's cache."""
    import pooch

    return Path(os.environ.get("NPGPT_CACHE") or pooch.os_cache("npgpt"))


def is_offline():
    """Whether NPGPT_OFFLINE forbids downloads."""
    return os.environ.get("NPGPT_OFFLINE", "") not in ("", "0")

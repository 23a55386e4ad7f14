"""How numbers, sizes and commands are written in output, help and errors."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

UNITS = (
    ("TB", 10**12, 2),
    ("GB", 10**9, 2),
    ("MB", 10**6, 0),
    ("kB", 10**3, 0),
)  # name, bytes, decimals


def counted(number, noun):
    """A number and what it counts: 1 token, 1,002 tokens."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(n_bytes):
    """A size in memory or on disk, in the largest unit of which it is one: 1.35 GB, 170 MB."""
    for unit, size, decimals in UNITS:
        if n_bytes >= 0.9995 * size:  # 1,000 MB, as it would be, is 1 GB
            return f"{n_bytes / size:,.{decimals}f} {unit}"
    return counted(n_bytes, "byte")


def command(*words):
    """The command `npgpt` with these words, as it can be pasted into the shell that started this.

    `npgpt` alone where the shell finds it, `.venv/bin/npgpt` where it was started like that, and
    `.venv/bin/python -m npgpt` where Python was.
    """
    started = Path(sys.argv[0])
    if started.stem == "npgpt" and started.suffix in ("", ".exe"):
        return as_command([found(started), *words])
    return as_command([python(), "-m", "npgpt", *words])


def install_extra(extra):
    """The command that installs an extra of this npgpt, which is on no package index.

    Of a clone it installs the extra; where npgpt came as a wheel, the packages that it consists of.
    """
    clone = this_clone()
    what = packages_of(extra) if clone is None else ["-e", f"{nearby(clone)}[{extra}]"]
    return as_command([python(), "-m", "pip", "install", *what])


def install_package(package):
    """The command that installs a package that npgpt needs; in a clone, all that it needs."""
    clone = this_clone()
    what = [package] if clone is None else ["-e", nearby(clone)]
    return as_command([python(), "-m", "pip", "install", *what])


def this_clone():
    """The folder of the clone that this npgpt is run from, or None where it came as a wheel."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "scripts" / "build_backend.py").exists() else None


def packages_of(extra):
    """The requirements of an extra, by the metadata of the installed npgpt."""
    from importlib.metadata import requires

    needs = (line.split(";") for line in requires("npgpt") or () if ";" in line)
    return [need.strip() for need, marker in needs if re.search(rf"extra == .{extra}\b", marker)]


def python():
    """This Python, as a shell finds it."""
    return found(Path(sys.executable))


def found(program):
    """The name of a program where the shell finds it by that, else its path."""
    name = program.name.removesuffix(".exe")
    at = shutil.which(name)
    return name if at and same_program(at, program) else nearby(program)


def same_program(one, other):
    """Whether two paths are one program's; a virtual environment's link to Python is its own."""
    one, other = (os.path.normcase(os.path.abspath(path)) for path in (one, other))
    return one.removesuffix(".exe") == other.removesuffix(".exe")


def nearby(path):
    """A path as seen from the current folder, if it is below that, else as it is from the root."""
    path, here = os.path.abspath(path), os.getcwd()
    if path == here:
        return "."
    if not path.startswith(os.path.join(here, "")):
        return path
    path = os.path.relpath(path)
    return path if os.sep in path else os.path.join(".", path)


def as_command(words):
    """Words as a command line, quoted for a POSIX shell or for PowerShell."""
    if os.name != "nt":
        return shlex.join(map(str, words))
    plain = re.compile(r"[\w.,:+/\\=-]+")
    first, *others = (w if plain.fullmatch(w) else f'"{w}"' for w in map(str, words))
    return " ".join([f"& {first}" if first.startswith('"') else first, *others])

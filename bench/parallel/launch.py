"""Ranks started by mpiexec, the processes that they are, and how they are told from each other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.results import ROOT
from npgpt.errors import NpgptError
from npgpt.parallel.launcher import launched_as
from npgpt.parallel.supervisor import SUPERVISED

LONGEST = 600  # seconds of a process, after which it counts as hanging


def mpiexec():
    """The mpiexec beside this Python, or the first in the path; raises NpgptError without one."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise NpgptError("there is no mpiexec: pip install -e '.[mpi]'")
    return found


def command(ranks, *words):
    """The command that starts so many ranks of `python WORDS`; one rank needs no MPI."""
    python = [sys.executable, *map(str, words)]
    return python if ranks == 1 else [mpiexec(), "-n", str(ranks), *python]


def start(words, **env):
    """Start a command whose output is kept."""
    return subprocess.Popen(
        words, cwd=ROOT, text=True, env={**os.environ, **env},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(words, **env):
    """Run a command to its end -> its output; raises NpgptError where it fails."""
    process = start(words, **env)
    out, err = process.communicate(timeout=LONGEST)
    if process.returncode:
        raise NpgptError(f"{' '.join(words)}: status {process.returncode}: {err.strip()[-300:]}")
    return out


def ranks_of(run):
    """Rank -> process of those that train in a folder, by Linux's /proc."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode().split("\0")
            lines = (path / "environ").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        environ = dict(line.split("=", 1) for line in lines if "=" in line)
        if SUPERVISED in environ and f"--run={run}" in words:
            found[launched_as(environ)[0]] = int(path.name)
    return found

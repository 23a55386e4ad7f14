"""Writers that are killed: by SIGKILL before and after each of their system calls. Linux only."""

import ctypes
import os
import signal
import tempfile
from pathlib import Path

from bench.reliability.writers import WRITERS
from npgpt.errors import FileError

TRACEME, SYSCALL, SETOPTIONS = 0, 24, 0x4200  # Linux's sys/ptrace.h
EXITKILL = 0x100000


def ptrace(request, process=0, data=0):
    """Call ptrace(2), or raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, process, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def killed(function, at):
    """Run function in a forked process, killed at its stop `at` before or after a system call.

    -> whether it came so far.
    """
    process = os.fork()
    if process == 0:
        try:
            ptrace(TRACEME)
            os.kill(os.getpid(), signal.SIGSTOP)
            function()
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    ptrace(SETOPTIONS, process, EXITKILL)
    for _ in range(at + 1):
        ptrace(SYSCALL, process)
        _, status = os.waitpid(process, 0)
        if os.WIFEXITED(status):
            return False
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def kill_everywhere(name, writers=WRITERS, step=1):
    """Kill a writer at each of its stops -> a dict of counts; raises where one is not survived.

    Survived: a reader finds the old, the new, or an error of one sentence that there is no such
    file, never a mixture; and writing again works.
    """
    writer, at = writers[name], 0
    counts = {"old": 0, "new": 0, "told": 0}
    while True:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            writer.write(folder, 1)
            if not killed(lambda f=folder: writer.write(f, 2), at):
                assert writer.read(folder) == 2
                return {"writer": name, "kill points": sum(counts.values()), **counts}
            try:
                counts[{1: "old", 2: "new"}[writer.read(folder)]] += 1
            except FileError as error:
                assert "\n" not in str(error)
                counts["told"] += 1
            writer.write(folder, 2)
            assert writer.read(folder) == 2, f"{name}: killed at {at}"
        at += step

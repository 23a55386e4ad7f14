"""The communicator of this process: alone or, started by mpiexec, one of several ranks."""

import io
import os
import socket
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

from npgpt.errors import ArgumentError
from npgpt.parallel.communicator import AFTERMATH, SILENCE, Alone, Ranks
from npgpt.parallel.launcher import launched_as

TIMEOUT = "NPGPT_RANK_TIMEOUT"  # the environment's variable: seconds, instead of SILENCE


def communicator():
    """The Alone or, among the ranks that mpiexec has started, the Ranks of this process."""
    _, size = launched_as()
    if size == 1:
        return Alone()
    from npgpt.parallel.mpi import MpiTransport

    return Ranks(MpiTransport(), silence_limit())


def silence_limit():
    """The seconds after which a silent rank is lost: those of TIMEOUT, or SILENCE."""
    text = os.environ.get(TIMEOUT, str(SILENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 3 <= seconds <= 86400:
        raise ArgumentError(f"{TIMEOUT} must be seconds from 3 to 86400, not {text!r}")
    return seconds


def run_as_rank(main, argv, prog):
    """Run a program's main(argv, prog) -> its exit status; what ranks but 0 print is dropped.

    It is the same, errors too. But one that ended a rank before it had joined the others, as a file
    that only its host lacks does, nobody else can tell: the rank does so, where all still run after
    some seconds.
    """
    rank, _ = launched_as()
    if rank == 0:
        return main(argv, prog)
    said = io.StringIO()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(said):
        status = main(argv, prog)
    if status and "mpi4py.MPI" not in sys.modules:
        time.sleep(AFTERMATH)
        text = said.getvalue().removeprefix("error: ")
        print(f"error: rank {rank} on {socket.gethostname()}: {text}", end="", file=sys.stderr)
    return status

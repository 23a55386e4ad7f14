"""The communicator of this process: alone or, started by mpiexec, one of several ranks."""

import os
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from npgpt.errors import ArgumentError
from npgpt.parallel.communicator import SILENCE, Alone, Ranks
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


@contextmanager
def only_rank_0_prints():
    """Context in which what other ranks print, errors too, is dropped: it is the same."""
    rank, _ = launched_as()
    if rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield

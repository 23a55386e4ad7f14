"""Messages between ranks by MPI: the one module that imports mpi4py."""

import atexit
import signal
from contextlib import contextmanager

from npgpt.errors import ArgumentError
from npgpt.parallel.launcher import launched_as
from npgpt.wording import install_extra

JOINING = 300  # seconds that a rank waits for all others to start


@contextmanager
def limited(seconds):
    """Context that ends the process by SIGALRM if it takes longer, also within MPI; on Unix."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class MpiTransport:
    """Bytes from rank to rank, without waiting: send, receive, done.

    `failure` is what they raise when MPI itself fails.
    """

    def __init__(self):
        """Join the ranks that mpiexec has started. Raises ArgumentError where that fails."""
        with limited(JOINING):
            self._join()

    def _join(self):
        _, launched = launched_as()
        try:
            import mpi4py
        except ImportError as error:
            raise ArgumentError(
                f"{launched} ranks were started, but they need the package mpi4py:"
                f" {install_extra('mpi')}"
            ) from error
        mpi4py.rc.finalize = False  # after a failure it would wait for ever
        try:
            from mpi4py import MPI

            atexit.register(finalize, MPI)
        except (ImportError, RuntimeError) as error:  # it finds no library of MPI
            first = str(error).splitlines()[0]
            raise ArgumentError(
                f"mpi4py cannot load an MPI: {first} ({install_extra('mpi')})"
            ) from error
        if MPI.COMM_WORLD.size != launched:
            raise ArgumentError(
                f"{launched} ranks were started, but mpi4py knows of {MPI.COMM_WORLD.size}: mpiexec"
                " must be of the MPI that mpi4py uses, as the one beside this Python"
            )
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise ArgumentError("MPI must allow calls from a thread (MPI_THREAD_SERIALIZED)")
        self._mpi, self._comm, self.failure = MPI, MPI.COMM_WORLD.Dup(), MPI.Exception
        self.rank, self.size = self._comm.rank, self._comm.size

    def send(self, array, to, tag):
        """Begin to send a contiguous array -> a request; it must not change until that is done."""
        return self._comm.Isend([array, array.nbytes, self._mpi.BYTE], to, tag)

    def receive(self, array, source, tag):
        """Begin to receive into a contiguous array -> a request."""
        return self._comm.Irecv([array, array.nbytes, self._mpi.BYTE], source, tag)

    def done(self, requests):
        """Whether all requests are done; moves data."""
        return self._mpi.Request.Testall(requests)

    def control(self):
        """Yield the source and the bytes of each short message of tag 1 that has come."""
        status = self._mpi.Status()
        while self._comm.Iprobe(self._mpi.ANY_SOURCE, 1, status):
            content = bytearray(status.Get_count(self._mpi.BYTE))
            self._comm.Recv([content, self._mpi.BYTE], status.source, 1)
            yield status.source, bytes(content)

    def abort(self, status):
        """End all ranks at once, those that do not answer too."""
        self._comm.Abort(status)

    def close(self, clean):
        """End the use of this transport; unless clean, some rank waits for a message in vain."""
        if clean:
            self._comm.Free()
        else:
            atexit.unregister(finalize)


def finalize(mpi):
    """Leave MPI as the process ends; waits for all ranks."""
    if not mpi.Is_finalized():
        mpi.Finalize()

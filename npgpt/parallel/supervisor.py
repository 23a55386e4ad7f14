"""A rank's supervisor: a process that waits for it, and says how it was killed.

mpiexec ends all processes as soon as one that it has started is killed, and does not always say
which. So what it starts is this supervisor, which computes nothing, and the rank is its child.
"""

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys

from npgpt.parallel.launcher import launched_as

SUPERVISED = "NPGPT_SUPERVISED"  # the environment's variable: the supervisor's process
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's sys/prctl.h


def run_supervised(advice=""):
    """Run this program's command once more, as a rank -> its exit status; None in the rank itself.

    None also where there is no other rank, or no signals as on Unix. advice: what the sentence that
    the rank was killed ends with.
    """
    rank, size = launched_as()
    if size == 1 or os.name != "posix":
        return None
    if SUPERVISED in os.environ:
        supervisor = int(os.environ[SUPERVISED])
        die_with_parent(supervisor)
        atexit.register(os.kill, supervisor, signal.SIGCONT)  # one that was stopped sees the end
        return None
    environ = {**os.environ, SUPERVISED: str(os.getpid())}
    child = subprocess.Popen(sys.orig_argv, env=environ, close_fds=False)  # MPI's are among them
    passed_on = set()

    def pass_on(number, frame):
        passed_on.add(number)
        child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    status = child.wait()
    if status < 0 and -status not in passed_on:  # mpiexec ends the others by SIGTERM
        if status == -signal.SIGALRM:
            what = "has waited in vain for all others to start"
        else:
            what = f"was killed by {signal.Signals(-status).name}{advice}"
        me = f"rank {rank} (process {child.pid} on {socket.gethostname()})"
        print(f"error: {me} {what}", file=sys.stderr, flush=True)
    return 128 - status if status < 0 else status


def die_with_parent(parent):
    """Let the system kill this process when its parent is no more. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it has gone already
            os._exit(1)

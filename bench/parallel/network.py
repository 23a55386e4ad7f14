"""Two ranks as on two machines: in network namespaces of their own, over a link of limited rate.

Linux only, as root, with ip and tc, and with MPICH. The namespaces have no way out: a pair of
virtual devices joins them, and the packets never leave this machine.
"""

import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from bench.parallel.launch import command, finish
from npgpt import GPT2Config
from npgpt.errors import NpgptError
from npgpt.parallel.measure import measure_machine
from npgpt.parallel.plan import Cluster, predict

HOSTS = "10.77.0.1", "10.77.0.2"  # addresses, and the namespaces' names
RATES = {"1gbit": 1.25e8, "100mbit": 1.25e7}  # tc's name -> bytes a second
# MPICH's other way, UCX, finds the shared memory of two namespaces on one machine.
BY_TCP = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": "npgpt"}
SETTLING = 2.0  # seconds after which a new link can be used
LATENCY = 1e-4  # seconds, of a message between two processes that sleep while they wait
LAUNCHER = """#!/bin/sh
# mpiexec calls it as it would call ssh: options, host, command
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
"""


def why_not():
    """Why there can be no namespaces here, or an empty text."""
    missing = [name for name in ("ip", "tc", "unshare") if shutil.which(name) is None]
    if missing or not hasattr(os, "geteuid"):
        return f"needs Linux with {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "needs root"


def sh(*words):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise NpgptError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


@contextmanager
def two_hosts(rate):
    """Context with two namespaces and a link of this rate, each way, between them."""
    made = []
    try:
        for host in HOSTS:
            sh("ip", "netns", "add", host)
            made.append(host)
        # one name for both ends: FI_TCP_IFACE must not be the loopback
        sh("ip", "link", "add", "npgpt", "netns", HOSTS[0], "type", "veth",
           "peer", "name", "npgpt", "netns", HOSTS[1])  # fmt: skip
        for host in HOSTS:
            sh("ip", "-n", host, "addr", "add", f"{host}/24", "dev", "npgpt")
            # IPv6's own address, which it takes seconds to get, would be tried first
            sh("ip", "-n", host, "link", "set", "npgpt", "addrgenmode", "none")
            sh("ip", "-n", host, "link", "set", "npgpt", "up")
            sh("ip", "-n", host, "link", "set", "lo", "up")
            sh("ip", "netns", "exec", host, "tc", "qdisc", "add", "dev", "npgpt", "root", "tbf",
               "rate", rate, "burst", "256kb", "latency", "50ms")  # fmt: skip
        time.sleep(SETTLING)
        yield
    finally:
        for host in made:
            sh("ip", "netns", "del", host)


def between_hosts(folder, *words):
    """The command that starts a rank of `python WORDS` on each of HOSTS."""
    launcher = folder / "launcher"
    launcher.write_text(LAUNCHER)
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    mpiexec, _, _, *python = command(2, *words)
    hosts = ",".join(f"{host}:1" for host in HOSTS)
    there = f'hostname {HOSTS[0]}; exec "$@"'
    return ["ip", "netns", "exec", HOSTS[0], "unshare", "--uts", "sh", "-c", there, "sh",
            mpiexec, "-launcher", "ssh", "-launcher-exec", str(launcher), "-hosts", hosts,
            "-n", "2", *python]  # fmt: skip


def compare(B, T, steps, model=None):
    """Measured and predicted seconds of a step, for each of RATES and without a limit in memory."""
    config, found = GPT2Config(**(model or {})), {}
    machine = measure_machine(config, B, T, ranks=2, threads=1)
    settings = {"B": B, "T": T, "threads": 1, "steps": steps, "model": model or {}}
    for rate, bandwidth in RATES.items():
        step = predict(config, machine, Cluster(2, 1, bandwidth, LATENCY))
        with tempfile.TemporaryDirectory() as folder, two_hosts(rate):
            words = ("-m", "bench.parallel.steps", json.dumps(settings))
            out = finish(between_hosts(Path(folder), *words), **BY_TCP)
        measured = json.loads(out.splitlines()[-1])
        found[rate] = {**measured, "predicted": step.total, "exchange": step.exchange}
    return {"B": B, "T": T, "rates": found, "measured figures": asdict(machine)}

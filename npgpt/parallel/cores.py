"""The cores of a host, divided among its ranks."""

import os
import socket

from npgpt.core.threads import get_threads, physical_cores, set_threads, share_cores


def divide_cores(comm, threads=0):
    """Divide the cores among the ranks that may use the same ones; threads: set as many instead.

    Returns: a sentence about each host with more threads than cores.
    """
    bound = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    me = [socket.gethostname(), bound]
    share_cores(comm.gather_json(me).count(me))
    if threads:
        set_threads(threads)
    known = comm.gather_json([*me, get_threads(), physical_cores()])
    return oversubscribed(known)


def oversubscribed(ranks):
    """A sentence for each set of cores with more threads than cores.

    ranks: for each its host, the cores that it may use, its threads, its physical cores.
    """
    notes, groups = [], {}
    for host, bound, threads, cores in ranks:
        groups.setdefault((host, tuple(bound), cores), []).append(threads)
    for (host, _, cores), threads in groups.items():
        if sum(threads) > cores:
            notes.append(
                f"{host}: {len(threads)} ranks with {sum(threads)} threads in all share"
                f" {cores} core{'s' * (cores > 1)}: fewer would be faster"
            )
    return notes


def unlike_cpus(comm):
    """A sentence, in a list, where not all ranks have CPUs with the same instructions."""
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

    mine = [get_host_cpu_name(), get_host_cpu_features().flatten()]
    known = comm.gather_json(mine)
    if all(one == mine for one in known):
        return []
    names = ", ".join(sorted({name for name, _ in known}))
    return [
        f"the ranks' CPUs have not all the same instructions ({names}): parameters that each rank"
        " updates by itself may drift apart, those of --shard-optimizer cannot"
    ]

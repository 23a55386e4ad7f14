"""What a training step takes on many machines, predicted from figures of one.

The formulae and their sources are in doc/scale/scale.md. A node is a machine like the measured one,
with a link of its own to all others; its ranks share the link as they share the cores.
"""

from dataclasses import dataclass

from npgpt.core.parameters import count_parameters
from npgpt.parallel.exchange import WIRES
from npgpt.parallel.layout import bucket_spans


@dataclass(frozen=True)
class Machine:
    """Seconds of a rank, as npgpt.parallel.measure finds them with all ranks of a node busy.

    block_forward and block_backward are of one block, rest of everything else but the update;
    update is of one parameter, copy of one byte. `threads` compute.
    """

    block_forward: float
    block_backward: float
    rest: float
    update: float
    copy: float
    threads: int


@dataclass(frozen=True)
class Cluster:
    """Nodes, ranks on each, bytes a second of a node's link each way, seconds of latency."""

    nodes: int
    ranks_per_node: int
    bandwidth: float
    latency: float

    @property
    def ranks(self):
        """The number of all ranks."""
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class Step:
    """Seconds of an update by what they go to; `hidden` of the exchange cost nothing."""

    compute: float
    exchange: float
    update: float
    hidden: float

    @property
    def total(self):
        """The seconds of the whole step."""
        return self.compute + self.exchange + self.update


def collective_seconds(n_bytes, cluster, machine):
    """A reduce-scatter, without its additions, or an all-gather of n_bytes at each rank.

    Of N ranks each sends 1/N to every other one. What goes to other nodes shares the node's link,
    what stays is copied.
    """
    N, R = cluster.ranks, cluster.ranks_per_node
    outside = (N - R) * cluster.latency + R * n_bytes * (N - R) / N / cluster.bandwidth
    return outside + n_bytes * (R - 1) / N * machine.copy


def predict(config, machine, cluster, grad_accum_steps=1, sharded=True, wire="fp32"):
    """The Step of a model of this GPT2Config, whose micro-batch the Machine was measured with."""
    N, n_params, L = cluster.ranks, count_parameters(config), config.n_layer
    micro_batch = machine.rest + L * (machine.block_forward + machine.block_backward)
    compute = grad_accum_steps * micro_batch
    if N == 1:
        return Step(compute, 0.0, n_params * machine.update, 0.0)
    width, sizes = WIRES[wire].dtype.itemsize, bucket_sizes(config)
    received = n_params * (N - 1) / N  # numbers
    # Each is added, a copy's time; on a machine whose cores all compute, that takes from these.
    adding = 4 * received * machine.copy
    backward_end = L * machine.block_backward
    at, busy = 0.0, 0.0
    for i, size in enumerate(sizes):
        ready = min((i + 1) * machine.block_backward, backward_end)
        seconds = collective_seconds(width * size, cluster, machine)
        seconds += adding * size / n_params
        if not sharded:
            seconds += collective_seconds(width * size, cluster, machine)
        at = max(at, ready) + seconds
        busy += seconds
    exposed = max(0.0, at - backward_end)
    exchange, hidden = exposed, busy - exposed
    if sharded:
        exchange += sum(collective_seconds(4 * size, cluster, machine) for size in sizes)
    exchange += 2 * (N - cluster.ranks_per_node) * cluster.latency  # loss and norm; any signal
    compute += min(adding, hidden) / machine.threads
    update = n_params * machine.update / (N if sharded else 1)
    return Step(compute, exchange, update, hidden)


def bucket_sizes(config):
    """The numbers of each bucket, in the order in which they are ready."""
    return [sum(stop - start for start, stop in spans) for spans in bucket_spans(config)]


def efficiency(config, machine, cluster, **options):
    """The speed of all ranks, as a fraction of as many that need not exchange anything."""
    alone = Cluster(1, 1, cluster.bandwidth, cluster.latency)
    accumulated = {"grad_accum_steps": options.get("grad_accum_steps", 1)}
    one = predict(config, machine, alone, **accumulated)
    return one.total / predict(config, machine, cluster, **options).total

"""AdamW in shards (ZeRO stage 1, Rajbhandari et al. 2020): each rank updates its own parameters.

The moments of a parameter are where its gradients are added up, and nowhere else. After the update
each rank sends its parameters to all.
"""

import numpy as np

from npgpt.model.optimizer import AdamW
from npgpt.parallel.communicator import DATA
from npgpt.parallel.exchange import all_gather
from npgpt.parallel.layout import make_layout

WINDOW = 1 << 22  # numbers of a moment that rank 0 holds at once, 16 MB


class ShardedAdamW(AdamW):
    """AdamW on this rank's spans of the parameters; m and v (n_own,) are float32 arrays."""

    def __init__(self, config, comm, *arguments):
        super().__init__(*arguments)
        self.comm, self.layout = comm, make_layout(config, comm.size)
        own = [span for parts in self.layout for span in parts[comm.rank]]
        self.n_own = sum(stop - start for start, stop in own)

    @classmethod
    def of_rank(cls, config, comm, backend, s):
        """Create the part of this rank, for a model of this config, by the Settings of a run."""
        return cls(
            config, comm, backend, (s.beta1, s.beta2), s.eps, s.weight_decay, s.decayed_params
        )

    def update(self, params, grads, lr, grad_scale=1.0):
        """Update this rank's spans of params, and gather those of the others.

        Bucket by bucket: one is on its way while the next is updated.
        """
        if self.m is None:
            self.m, self.v = np.zeros(self.n_own, np.float32), np.zeros(self.n_own, np.float32)
        self.updates += 1
        jobs, at = [], 0
        for parts in self.layout:
            own = parts[self.comm.rank]
            n_params = sum(stop - start for start, stop in own)
            self.update_pieces([*self._pieces(params, grads, own, at)], n_params, lr, grad_scale)
            jobs.append(self.comm.submit(all_gather, self.comm, params.flat, parts))
            at += n_params
        for job in jobs:
            job.result()

    def _pieces(self, params, grads, own, at):
        """Yield p, g, m, v and whether it is decayed, for each piece of the spans in own.

        at: where their moments begin in m and v.
        """
        for start, stop in own:
            for span, decays in params.spans(self.decays):
                i, j = max(start, span.start), min(stop, span.stop)
                if i < j:
                    shard = slice(at + i - start, at + j - start)
                    moments = self.m[shard], self.v[shard]
                    yield params.flat[i:j], grads.flat[i:j], *moments, decays
            at += stop - start

    def state(self, config):
        """As AdamW's; m and v are Scattered, whose pieces all ranks must ask for."""
        m, v = (Scattered(self, moment) for moment in (self.m, self.v))
        return {"updates": self.updates, "m": m, "v": v}

    def restore(self, state):
        """Restore what `state` returned at rank 0, as AdamW's restore; others need no state."""
        if self.comm.rank == 0:
            super().restore(state)
            whole = {"m": self.m.flat, "v": self.v.flat}
        self.updates = self.comm.broadcast_json(self.updates)
        for name in self.MOMENTS:
            shard = np.empty(self.n_own, np.float32)
            for window in windows(self.layout):
                source = whole[name] if self.comm.rank == 0 else None
                self.comm.run(scatter, self.comm, window, source, shard)
            setattr(self, name, shard)


class Scattered:
    """A moment that all ranks have their shards of; None is zeros."""

    def __init__(self, optimizer, shard):
        self.optimizer, self.shard = optimizer, shard

    def pieces(self):
        """Yield it in order, at rank 0; the other ranks send what is theirs, and yield nothing."""
        optimizer, comm = self.optimizer, self.optimizer.comm
        shard = self.shard
        if shard is None:
            shard = np.zeros(optimizer.n_own, np.float32)
        for window in windows(optimizer.layout):
            piece = comm.run(gather, comm, window, shard)
            if comm.rank == 0:
                yield piece


def windows(layout):
    """The flat buffer in windows of up to WINDOW numbers, a list of pieces each.

    A piece is (start, stop, rank, at): its span, who owns it, and where in that rank's shard.
    """
    found, ends = [], [0] * len(layout[0])
    for parts in layout:
        for rank, spans in enumerate(parts):
            for start, stop in spans:
                for i in range(start, stop, WINDOW):
                    j = min(i + WINDOW, stop)
                    found.append((i, j, rank, ends[rank] + i - start))
                ends[rank] += stop - start
    window, size = [], 0
    for piece in sorted(found):
        if size + piece[1] - piece[0] > WINDOW:
            yield window
            window, size = [], 0
        window.append(piece)
        size += piece[1] - piece[0]
    yield window


def gather(comm, window, shard):
    """Of a job: a window's numbers (n,) at rank 0, from the shards of all."""
    transport, first = comm.transport, window[0][0]
    whole = np.empty(window[-1][1] - first, np.float32) if comm.rank == 0 else None
    requests, peers = [], set()
    for start, stop, rank, at in window:
        own = shard[at : at + stop - start] if rank == comm.rank else None
        if comm.rank == 0 and rank == 0:
            whole[start - first : stop - first] = own
        elif comm.rank == 0:
            place = whole[start - first : stop - first]
            requests.append(transport.receive(place, rank, DATA))
            peers.add(rank)
        elif own is not None:
            requests.append(transport.send(own, 0, DATA))
            peers.add(0)
    comm.wait(requests, peers)
    return whole


def scatter(comm, window, whole, shard):
    """Of a job: a window's numbers from whole (n_params,) at rank 0 into the shards of all."""
    transport, requests, peers = comm.transport, [], set()
    for start, stop, rank, at in window:
        place = shard[at : at + stop - start] if rank == comm.rank else None
        if comm.rank == 0 and rank == 0:
            place[:] = whole[start:stop]
        elif comm.rank == 0:
            requests.append(transport.send(whole[start:stop], rank, DATA))
            peers.add(rank)
        elif place is not None:
            requests.append(transport.receive(place, 0, DATA))
            peers.add(0)
    comm.wait(requests, peers)


SHARDED = {"adamw": ShardedAdamW}  # the name in OPTIMIZERS -> its sharded kind

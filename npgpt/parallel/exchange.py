"""The gradients of all ranks added up, bucket by bucket, while the backward pass goes on.

A bucket is divided among the ranks. Each sends every other one its numbers of the other's part
(reduce-scatter) and adds what it receives in the order of the ranks. Then, unless the optimizer is
sharded, each sends its sums to all (all-gather).
"""

import numpy as np

from npgpt.core.threads import FLOPS_PER_BYTE
from npgpt.parallel.communicator import DATA
from npgpt.parallel.layout import make_layout


class Fp32:
    """Numbers as they are."""

    help = "float32"
    dtype = np.dtype(np.float32)

    @staticmethod
    def encode(x):
        """What is sent for x (n,)."""
        return x

    @staticmethod
    def decode(x):
        """The float32 (n,) of what has come."""
        return x


class Bf16:
    """Numbers rounded to bf16, half the bytes."""

    help = "bf16, half the bytes and 8 significant bits"
    dtype = np.dtype(np.uint16)

    @staticmethod
    def encode(x):
        from npgpt.kernels.numerics.bfloat16 import round_row

        bits = np.empty(x.size, np.uint16)
        round_row(x, bits)
        return bits

    @staticmethod
    def decode(x):
        return np.left_shift(x, 16, dtype=np.uint32).view(np.float32)


WIRES = {"fp32": Fp32, "bf16": Bf16}


class Exchange:
    """Of a process by itself: its gradients are those of the update."""

    def __init__(self, model):
        self.model = model
        self.block_done = None  # nothing is waiting for a block's gradients

    def finish(self, loss):
        """The update's loss and gradients' norm, from this rank's part of the loss."""
        return loss, self.model.gradient_norm()


class SharedExchange(Exchange):
    """Of a rank: `block_done` sends a block's gradients, `finish` returns when all are added up.

    With `gathered` each rank has the sums of all parameters then, otherwise those of its part.
    """

    def __init__(self, model, comm, gathered, wire="fp32"):
        self.model, self.comm, self.gathered = model, comm, gathered
        self.wire = WIRES[wire]
        self.layout = make_layout(model.config, comm.size)
        largest = max(number_of(parts[comm.rank]) for parts in self.layout)
        # what comes for one bucket; made once, since new memory costs as much as filling it
        self.received = np.empty((comm.size, largest), self.wire.dtype)
        self.pending = []

    def block_done(self, layer):
        """Begin to exchange the gradients of a block, which are final."""
        self._send(self.model.config.n_layer - 1 - layer)

    def finish(self, loss):
        for bucket in range(self.model.config.n_layer, len(self.layout)):
            self._send(bucket)
        for future in self.pending:
            future.result()
        self.pending = []
        if self.gathered:  # by rank 0, whose CPU may round in another way than others'
            norm = self.model.gradient_norm() if self.comm.rank == 0 else 0.0
            parts = self.comm.gather([loss, norm**2])
        else:
            parts = self.comm.gather([loss, self._own_squares()])
        loss, squares = (sum(column) for column in parts.T.tolist())  # in the order of the ranks
        return loss, float(np.sqrt(squares))

    def _own_squares(self):
        flat, backend = self.model.grads.flat, self.model.backend
        own = [span for parts in self.layout for span in parts[self.comm.rank]]
        with backend.computing(4 * FLOPS_PER_BYTE * flat.size / self.comm.size):
            return sum(backend.layers.gradient_norm(flat[i:j]) ** 2 for i, j in own)

    def _send(self, bucket):
        job = self.comm.submit(self._reduce, self.model.grads.flat, self.layout[bucket])
        self.pending.append(job)

    def _reduce(self, flat, parts):
        """A bucket's sums, into the spans of flat that this rank owns or, gathered, into all."""
        send, others = self.comm.transport.send, self.comm.others
        own, ends = parts[self.comm.rank], [0]
        for i, j in own:
            ends.append(ends[-1] + j - i)
        received = [
            [place[i:j] for i, j in zip(ends, ends[1:], strict=False)] for place in self.received
        ]
        requests = [
            self.comm.transport.receive(piece, rank, DATA)
            for rank in others
            for piece in received[rank]
        ]
        for rank in others:
            requests += [send(self.wire.encode(flat[i:j]), rank, DATA) for i, j in parts[rank]]
        self.comm.wait(requests, others)
        for k, (i, j) in enumerate(own):
            terms = [
                flat[i:j] if rank == self.comm.rank else self.wire.decode(received[rank][k])
                for rank in range(self.comm.size)
            ]
            add_in_order(terms, flat[i:j])
        if self.gathered:
            if self.wire is not Fp32:  # the same everywhere: rounded here, too
                for i, j in own:
                    flat[i:j] = self.wire.decode(self.wire.encode(flat[i:j]))
            all_gather(self.comm, flat, parts, self.wire)


def number_of(spans):
    """How many numbers spans have in all."""
    return sum(stop - start for start, stop in spans)


def add_in_order(terms, out):
    """The sum of arrays, from the first to the last, into out, which may be one of them."""
    total = terms[0]  # out or what has come, and so may change
    for term in terms[1:-1]:
        total += term
    np.add(total, terms[-1], out=out)


def all_gather(comm, flat, parts, wire=Fp32):
    """Of a job: every rank sends its part of flat to all."""
    transport, encoded = comm.transport, [wire.encode(flat[i:j]) for i, j in parts[comm.rank]]
    requests, coming = [], []
    for rank in comm.others:
        for i, j in parts[rank]:
            place = flat[i:j] if wire is Fp32 else np.empty(j - i, wire.dtype)
            coming.append((i, j, place))
            requests.append(transport.receive(place, rank, DATA))
        requests += [transport.send(piece, rank, DATA) for piece in encoded]
    comm.wait(requests, comm.others)
    if wire is not Fp32:
        for i, j, place in coming:
            flat[i:j] = wire.decode(place)

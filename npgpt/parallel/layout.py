"""Which rank owns which part of the flat buffer, and in which order its gradients are ready.

A tensor of the blocks lies in the buffer layer after layer, (L, ...), so what belongs to one block
is twelve pieces, and what lies side by side is ready only when the lowest block is. Buckets are
therefore made of blocks: bucket 0 has the last block and ln_f, the next ones a block each, down to
the first, and the rest the embeddings, whose gradients are ready last. Each bucket is divided among
all ranks, so that all of them add and send alike much at any time.
"""

import math

from npgpt.core.parameters import BLOCK_NAMES, parameter_shapes

ALIGNMENT = 16  # float32 numbers in 64 bytes, a cache line
LARGEST = 1 << 23  # float32 numbers of a bucket of the embeddings, 32 MB


def make_layout(config, size):
    """For each bucket, for each of `size` ranks, its spans (start, stop) of the flat buffer."""
    return [divide(spans, size) for spans in bucket_spans(config)]


def bucket_spans(config):
    """For each bucket its spans, in the order in which the backward pass fills them."""
    L, tensors, start = config.n_layer, {}, 0
    for name, shape in parameter_shapes(config).items():
        tensors[name] = start, start + math.prod(shape)
        start += math.prod(shape)
    blocks = []
    for layer in reversed(range(L)):
        firsts = [
            (tensors[name][0], (tensors[name][1] - tensors[name][0]) // L) for name in BLOCK_NAMES
        ]
        blocks.append([(first + layer * n, first + (layer + 1) * n) for first, n in firsts])
    blocks[0] += [tensors["lnfw"], tensors["lnfb"]]
    start, stop = tensors["wte"][0], tensors["wpe"][1]  # side by side
    embeddings = [[(i, min(i + LARGEST, stop))] for i in range(start, stop, LARGEST)]
    return blocks + embeddings


def divide(spans, size):
    """Cut spans into `size` parts of alike many numbers -> for each part its spans."""
    total = sum(stop - start for start, stop in spans)
    cuts = [total * rank // size // ALIGNMENT * ALIGNMENT for rank in range(size)] + [total]
    parts, at = [[] for _ in range(size)], 0
    for start, stop in spans:
        for part, low, high in zip(parts, cuts, cuts[1:], strict=False):
            first, last = max(low, at), min(high, at + stop - start)
            if first < last:
                part.append((start + first - at, start + last - at))
        at += stop - start
    return parts

"""Times of the model's design choices: each way beside the others, in turn, on one core.

The medians are of the core's own time, in ms, so that other programs count for little.
"""

import statistics
import time

import numba
import numpy as np

from npgpt import GPT2, GPT2Config, Parameters, kernels, set_threads
from npgpt.core.parameters import BLOCK_NAMES
from npgpt.model import passes

rng = np.random.default_rng(0)
CONFIG = GPT2Config(block_size=1024, vocab_size=8192, n_layer=12, n_head=4, n_embd=256)


def compare(ways, rounds):
    """Name -> function: call each of them in turn, round after round, and print the medians."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds + 2):
        for name, way in ways.items():
            start = time.process_time()
            way()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(times[2:]) for name, times in seconds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:<24} {1e3 * median:8.2f} ms  {median / first:5.2f}")


def memory():
    x, y = rng.standard_normal((2, 4, 1024, 768), dtype=np.float32)  # each (B, T, C)

    def on_new_memory():
        kernels.memory.buffers.free()
        kernels.residual_add(x, y)

    print("a sum of two arrays (4, 1024, 768)")
    on_used_memory = lambda: kernels.residual_add(x, y)  # noqa: E731
    compare({"on used memory": on_used_memory, "on new memory": on_new_memory}, 200)


def update():
    buffers = p, g, m, v = [Parameters(CONFIG) for _ in range(4)]
    g.flat[:] = rng.standard_normal(g.flat.size, dtype=np.float32)
    ends = [(b.wte, b.wpe, b.lnfw, b.lnfb) for b in buffers]
    blocks = [[getattr(block, name) for block in b.blocks for name in BLOCK_NAMES] for b in buffers]
    tensors = [[*end, *block] for end, block in zip(ends, blocks, strict=True)]
    settings = 1, 1e-4, 0.9, 0.999, 1e-8, 0.1

    def in_one():
        kernels.adamw_update(p.flat, g.flat, m.flat, v.flat, *settings)

    def one_by_one():
        for four in zip(*tensors, strict=True):
            kernels.adamw_update(*(tensor.reshape(-1) for tensor in four), *settings)

    print(f"AdamW on {p.flat.size:,} parameters in {len(tensors[0])} tensors")
    compare({"in one call": in_one, "a call a tensor": one_by_one}, 50)


def lm_head():
    rows = passes.HEAD_ROWS
    params, grads = Parameters.init(CONFIG), Parameters(CONFIG)
    lnf = rng.standard_normal((1, 1024, CONFIG.n_embd), dtype=np.float32)  # (B, T, C)
    targets = rng.integers(0, CONFIG.vocab_size, (1, 1024))  # (B, T)

    def in_chunks_of(n):
        def way():
            passes.HEAD_ROWS = n
            passes.lm_head_loss(lnf, targets, params, kernels, grads)

        return way

    print("the lm_head, forward and backward, of 1,024 positions; V 8,192, C 256")
    compare({f"{n} rows at a time": in_chunks_of(n) for n in (1024, 16, 64, 256, 512)}, 7)
    passes.HEAD_ROWS = rows


def recompute():
    tokens, targets = rng.integers(0, CONFIG.vocab_size, (2, 1, 256))  # each (B, T)
    ways = {}
    for name, again in (("all kept", False), ("recompute", True), ("blocks", "blocks")):
        model = GPT2(CONFIG, recompute=again)
        ways[name] = lambda model=model: model.forward_backward(tokens, targets)
    print("forward and backward of 12 layers at B=1, T=256, C 256")
    compare(ways, 9)


numba.set_num_threads(1)
set_threads(1)
for measure in (memory, update, lm_head, recompute):
    measure()

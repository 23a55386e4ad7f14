"""A token's way through all blocks, as one kernel: the loop of npgpt/generate.py's forward_step.

Between two layers Python takes some microseconds where its own code and data are in the caches.
While a model samples they are not, for megabytes of weights have just passed through. So for few
positions nothing of Python comes between: each layer's kernel is called by this one.
"""

from collections import namedtuple

import numpy as np
from numba import get_num_threads

from npgpt.kernels.attention import step_heads
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.gelu import forward_block
from npgpt.kernels.layernorm import forward_group
from npgpt.kernels.matmul import few_rows
from npgpt.kernels.numerics.int8 import Scaled
from npgpt.kernels.residual import add_block
from npgpt.layers.layernorm import EPS
from npgpt.parameters import BLOCK_NAMES, MATRICES

# The parameters of all blocks, stacked: the matrices are Scaled.
Blocks = namedtuple("Blocks", BLOCK_NAMES)


def blocks_of(p, rounded):
    """The Blocks of Parameters, matrices rounded by to_halves or to_int8, or left by np.asarray."""
    blocks = {name: getattr(p, name) for name in BLOCK_NAMES}
    for name in BLOCK_NAMES:
        if name in MATRICES:
            w = rounded(blocks[name])
            if not isinstance(w, Scaled):
                w = Scaled(w, np.empty((len(w), 0), p.ln1w.dtype))
            blocks[name] = w
    return Blocks(**blocks)


def blocks_step(x, p, kv, at):
    """All blocks for N new positions at `at`: x (B, N, C), of up to FEW rows -> (B, N, C).

    p is of Blocks; kv (L, 2, B, NH, maxT, hs) has the keys and values of the positions before, and
    then theirs.
    """
    B, N, C = x.shape
    out, threads = x.copy(), get_num_threads()
    rooms = [np.empty((B * N, width * C), x.dtype) for width in (1, 3, 1, 4)]
    scores, stats = np.empty((threads, at + N), x.dtype), np.empty((2, B * N), x.dtype)
    step_blocks(out, p, kv, at, x.dtype.type(EPS), *rooms, scores, stats)
    return out


@jit
def step_blocks(x, p, kv, at, eps, narrow, qkv, y, fch, scores, stats):
    """x (B, N, C) becomes the last block's output; the other arrays are room."""
    B, N, C = x.shape
    rows, threads, (mean, rstd) = x.reshape(B * N, C), len(scores), stats
    for layer in range(len(kv)):
        forward_group(rows, p.ln1w[layer], p.ln1b[layer], eps, narrow, mean, rstd)
        linear(narrow, p.qkvw, p.qkvb, layer, qkv, threads)
        step_heads(qkv.reshape(B, N, 3 * C), kv[layer], at, y.reshape(B, N, C), scores)
        linear(y, p.attprojw, p.attprojb, layer, narrow, threads)
        add_block(x.reshape(-1), narrow.reshape(-1), x.reshape(-1))
        forward_group(rows, p.ln2w[layer], p.ln2b[layer], eps, narrow, mean, rstd)
        linear(narrow, p.fcw, p.fcb, layer, fch, threads)
        forward_block(fch.reshape(-1), fch.reshape(-1))
        linear(fch, p.fcprojw, p.fcprojb, layer, narrow, threads)
        add_block(x.reshape(-1), narrow.reshape(-1), x.reshape(-1))


@jit
def linear(x, w, b, layer, out, threads):
    """out (M, OC) = x (M, C) @ the layer's w.T + its b."""
    few_rows(x, w.values[layer], w.scale[layer], b[layer], out, threads)

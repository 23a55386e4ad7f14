"""All transformer blocks for a few positions as one kernel: the decoder's loop, for sampling.

Between two layers Python takes some microseconds when its own code and data are in the caches.
While a model samples they are not, for megabytes of weights have just passed through. So for a few
positions this kernel calls those of the layers, and Python comes in only once for all blocks.
"""

from collections import namedtuple

import numpy as np
from numba import get_num_threads

from npgpt.core.parameters import BLOCK_NAMES, HIDDEN_MATRICES
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.gelu import forward_block
from npgpt.kernels.heads.step import check_cache, step_heads
from npgpt.kernels.layernorm import forward_group
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.scaled import Scaled
from npgpt.kernels.products.gemv import gemv_rows
from npgpt.kernels.residual import add_block
from npgpt.layers.layernorm import EPS

# The parameters of all blocks, stacked: the matrices are Scaled.
Blocks = namedtuple("Blocks", BLOCK_NAMES)  # type: ignore[misc]


def decode_params(p):
    """The Blocks of Parameters or QuantizedParameters."""
    blocks = {name: getattr(p, name) for name in BLOCK_NAMES}
    for name in HIDDEN_MATRICES:
        w = blocks[name]
        is_scaled = isinstance(w, Scaled)
        blocks[name] = w if is_scaled else Scaled(w, np.empty((len(w), 0), p.ln1w.dtype))
    return Blocks(**blocks)


def decode_blocks(x, p, kv, at):
    """All blocks for N new positions at `at`: x (B, N, C) of up to DOT_MAX_ROWS rows -> (B, N, C).

    p is Blocks; kv (L, 2, B, NH, maxT, hs) has the keys and values of the positions before, and
    afterwards of these too.
    """
    B, N, C = x.shape
    check_cache(kv, x, C, at)
    out, n_threads = x.copy(), get_num_threads()
    layers = [np.empty((B * N, width * C), x.dtype) for width in (1, 3, 1, 4)]
    scores, stats = np.empty((n_threads, at + N), x.dtype), np.empty((2, B * N), x.dtype)
    step_blocks(out, p, kv, at, x.dtype.type(EPS), *layers, scores, stats)
    return out


@jit
def step_blocks(x, p, kv, at, eps, narrow, qkv, y, fch, scores, stats):
    """x (B, N, C) becomes the last block's output; the other arrays are workspace."""
    B, N, C = x.shape
    rows, n_threads, (mean, rstd) = x.reshape(B * N, C), len(scores), stats
    mode = flush_denormals()
    for layer in range(len(kv)):
        forward_group(rows, p.ln1w[layer], p.ln1b[layer], eps, narrow, mean, rstd)
        linear(narrow, p.qkvw, p.qkvb, layer, qkv, n_threads)
        step_heads(qkv.reshape(B, N, 3 * C), kv[layer], at, y.reshape(B, N, C), scores)
        linear(y, p.attprojw, p.attprojb, layer, narrow, n_threads)
        add_block(x.reshape(-1), narrow.reshape(-1), x.reshape(-1))
        forward_group(rows, p.ln2w[layer], p.ln2b[layer], eps, narrow, mean, rstd)
        linear(narrow, p.fcw, p.fcb, layer, fch, n_threads)
        forward_block(fch.reshape(-1), fch.reshape(-1))
        linear(fch, p.fcprojw, p.fcprojb, layer, narrow, n_threads)
        add_block(x.reshape(-1), narrow.reshape(-1), x.reshape(-1))
    restore_denormals(mode)


@jit
def linear(x, w, b, layer, out, n_threads):
    """out (M, OC) = x (M, C) @ the layer's w.T + its b."""
    gemv_rows(x, w.values[layer], w.scale[layer], b[layer], out, n_threads)

"""GELU in GPT-2's tanh form, a block of elements at a time: the twin of npgpt/layers/gelu.py.

1 + tanh(u) = 2 / (1 + exp(-2u)), so that one exp serves, and out = x / (1 + exp(-2u)).
"""

from numba import prange

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.memory.buffers import empty
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.exponential import exp
from npgpt.layers.gelu import CUBIC, SCALE

BLOCK = 1 << 13  # elements that one thread takes at a time


def gelu_forward(x):
    """x of any shape -> out of the same shape, cache."""
    out = empty(x.shape, x.dtype)
    forward = forward_block if x.size <= BLOCK else forward_blocks  # one block needs one thread
    forward(x.reshape(-1), out.reshape(-1))
    return out, x


def gelu_backward(dout, cache):
    """dout, of the shape of x -> dx."""
    x = cache
    dx = empty(x.shape, x.dtype)
    backward_blocks(dout.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx


@jit
def forward_block(x, out):
    """Fills out (N,)."""
    real = x.dtype.type
    scale, cubic, one = real(-2 * SCALE), real(CUBIC), real(1)
    mode = flush_denormals()
    for i in range(x.size):
        z = x[i]
        out[i] = z / (one + exp(scale * (z + cubic * z * z * z)))
    restore_denormals(mode)


@jit(parallel=True)
def forward_blocks(x, out):
    """Fills out (N,)."""
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        forward_block(x[span], out[span])


@jit(parallel=True)
def backward_blocks(dout, x, dx):
    """Fills dx (N,)."""
    real = x.dtype.type
    scale, cubic, one = real(-2 * SCALE), real(CUBIC), real(1)
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        mode = flush_denormals()
        span = slice(block * BLOCK, (block + 1) * BLOCK)
        di, xi, dxi = dout[span], x[span], dx[span]
        for i in range(xi.size):
            z = xi[i]
            e = exp(scale * abs(z + cubic * z * z * z))  # at most 1: no product overflows
            half = one / (one + e)
            h = half if z > 0 else e * half  # (1 + tanh(u)) / 2, and h (1 - h) = e half^2
            slope = -scale * (one + real(3) * cubic * z * z)  # d 2u / dx
            dxi[i] = di[i] * (h + z * (e * half * half) * slope)
        restore_denormals(mode)

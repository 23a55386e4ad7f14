"""Where a head's queries, keys, values and outputs are in the arrays of all heads."""

from npgpt.kernels.codegen.jit import inlined, jit


@inlined
def head(x, i, hs):
    """The i-th hs channels of x (T, channels)."""
    return x[:, i * hs : (i + 1) * hs]


@inlined
def queries_keys_values(qkv, h, hs):
    """q, k and v (T, hs) of head h, from qkv (T, 3C)."""
    NH = qkv.shape[1] // (3 * hs)
    return head(qkv, h, hs), head(qkv, NH + h, hs), head(qkv, 2 * NH + h, hs)


@jit
def transpose_into(x, out):
    """out (T, hs) = x (hs, T), transposed."""
    for t in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[t, c] = x[c, t]

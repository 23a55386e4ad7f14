"""How weights of each format are read as floats: in vectors, in parts of rows, and all of them.

A reader is called with what an intrinsic has, (builder, x, w, scale), and returns how many k it
reads at a time, the unit of the numbers read, and read(j, k): from there on of row j a list of
(offset, vector), as long as one of x, and what all are to be multiplied by, a vector or None.
"""

import numpy as np
from llvmlite import ir
from numba import get_num_threads, prange, types
from numba.extending import intrinsic, overload

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import VECTOR, Matrix, broadcast, integer
from npgpt.kernels.numerics.bfloat16 import as_float
from npgpt.kernels.numerics.denormals import flush_denormals, restore_denormals
from npgpt.kernels.numerics.int4 import GROUP, HALF, widen_group


def read_floats(builder, x, w, scale):
    return x.lanes, 1.0, lambda j, k: ([(0, w.load(w.pointer(j, k), x.lanes))], None)


def read_bf16(builder, x, w, scale):
    words = ir.VectorType(ir.IntType(32), x.lanes)
    vector = ir.VectorType(x.element, x.lanes)

    def read(j, k):
        bits = builder.zext(w.load(w.pointer(j, k), x.lanes), words)
        bits = builder.shl(bits, ir.Constant(words, [16] * x.lanes))
        return [(0, builder.bitcast(bits, vector))], None

    return x.lanes, 1.0, read


def read_int8(builder, x, w, scale):
    vector = ir.VectorType(x.element, x.lanes)

    def read(j, k):
        return [(0, builder.sitofp(w.load(w.pointer(j, k), x.lanes), vector))], None

    return x.lanes, 1.0, read


def read_int4(builder, x, w, scale):
    """Each number is moved to the highest four bits, where its first is the sign: times 2**28."""
    words = ir.VectorType(ir.IntType(32), x.lanes)
    vector = ir.VectorType(x.element, x.lanes)

    def all_of(word):
        return ir.Constant(words, [word] * x.lanes)

    def read(j, k):
        group = builder.sdiv(k, integer(GROUP))
        factor, vectors = broadcast(builder, builder.load(scale.pointer(j, group)), vector), []
        for part in range(0, HALF, x.lanes):
            at = builder.add(builder.mul(group, integer(HALF)), integer(part))
            pairs = builder.zext(w.load(w.pointer(j, at), x.lanes), words)
            low = builder.shl(pairs, all_of(28))
            high = builder.and_(builder.shl(pairs, all_of(24)), all_of(0xF0000000))
            vectors += [
                (part, builder.sitofp(low, vector)),
                (HALF + part, builder.sitofp(high, vector)),
            ]
        return vectors, factor

    return GROUP, 2.0**-28, read


READERS = {
    "float32": read_floats, "float64": read_floats, "uint16": read_bf16, "int8": read_int8,
    "uint8": read_int4,
}  # fmt: skip


def widened(w):
    """Scaled weights (..., N, K), in bf16, int8 or int4 -> their numbers, float32."""
    values, scale = w
    stored = values.shape[-1]
    K = 2 * stored if values.dtype == np.uint8 else stored  # int4: two numbers in a byte
    # Not from memory.buffers: wte's block would be too large to stay among the idle ones.
    out = np.empty((*values.shape[:-1], K), np.float32)
    scale = scale.reshape(-1, K // GROUP) if values.dtype == np.uint8 else scale.reshape(-1)
    widen_rows(values.reshape(-1, stored), scale, out.reshape(-1, K), get_num_threads())
    return out


@jit(parallel=True)
def widen_rows(w, scale, out, n_threads):
    """Fills out (N, K), float32, from w in a format; each thread has rows of its own."""
    N, K = out.shape
    for thread in prange(n_threads):
        mode = flush_denormals()
        for j in range(N * thread // n_threads, N * (thread + 1) // n_threads):
            widen_part(w, scale, j, 0, K, out[j])
            scale_row(out[j], scale, j)
        restore_denormals(mode)


@jit
def scale_row(row, scale, j):
    """Multiply row (K,) by the scale of int8's row j, if there is one."""
    if scale.ndim == 1 and scale.size:
        for k in range(row.size):
            row[k] *= scale[j]


@jit
def widen_part(w, scale, j, k0, k1, row):
    """The first numbers of row = those from k0 to k1 of row j of the weights, as floats.

    Those of int8 are still to be multiplied by scale[j].
    """
    step = GROUP if scale.ndim == 2 else VECTOR // row.itemsize
    k = k0
    while k + step <= k1:
        widen_step(w, scale, j, k, row, k - k0)
        k += step
    while k < k1:
        row[k - k0] = as_float(w[j, k])
        k += 1


def widen_step(w, scale, j, k, row, at):
    """As many numbers of row, from `at` on, as a reader reads at a time of w, at row j and k."""
    if scale.ndim == 2:
        widen_group(w[j, k // 2 : k // 2 + HALF], scale[j, k // GROUP], row[at : at + GROUP])
    else:
        for i in range(VECTOR // row.itemsize):
            row[at + i] = as_float(w[j, k + i])


@overload(widen_step)
def _(w, scale, j, k, row, at):
    return lambda w, scale, j, k, row, at: widen_vectors(w, scale, j, k, row, at)


@intrinsic
def widen_vectors(typing_context, w, scale, j, k, row, at):
    """The vector instructions of widen_step."""

    def generate(context, builder, signature, arguments):
        w, scale, row = (
            Matrix(context, builder, signature.args[n], arguments[n]) for n in (0, 1, 4)
        )
        _, unit, read = READERS[str(signature.args[0].dtype)](builder, row, w, scale)
        vectors, factor = read(arguments[2], arguments[3])
        if factor is not None:
            factor = builder.fmul(factor, ir.Constant(factor.type, [unit] * row.lanes))
        start = builder.gep(row.data, [arguments[5]])
        for offset, numbers in vectors:
            if factor is not None:
                numbers = builder.fmul(numbers, factor)
            row.store(numbers, builder.gep(start, [integer(offset)]))
        return context.get_dummy_value()

    return types.void(w, scale, j, k, row, at), generate

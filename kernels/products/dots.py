"""Dot products of a few rows with the rows of a matrix, which is read once, as four streams.

A block of them is written in vector instructions: a compiler would add up the lanes of each sum by
itself, which takes longer than the multiplications of a short row.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import AVX512, LINE, VECTOR, Matrix, add_lanes, fma_of, integer
from npgpt.kernels.numerics.bfloat16 import as_float
from npgpt.kernels.products.weights import READERS, widen_part

STREAMS = 4  # rows of w, a quarter of it apart: a core's memory bandwidth is a third higher so
BLOCK_ROWS = 4 if AVX512 else 2  # rows of x that a block's sums have registers for
# Of READERS' dtypes, bf16 and int8. Floats arrive as fast as they are multiplied, and int4 takes
# longer to convert than to read; in between, a core does not look far enough ahead by itself.
PREFETCHED = "uint16", "int8"
AHEAD = 1024  # bytes of a row, how far ahead these are prefetched


@jit
def dot_rows(x, w, scale, out):
    """out (M, N) = x (M, K) @ the weights.T; all sums in the same order.

    The rows of the weights are those of w, contiguous: floats, bf16, int8, whose scale is left out
    here, or int4 with its scale.
    """
    M, N = out.shape
    quarter, last = (N + STREAMS - 1) // STREAMS, N - 1
    for j in range(quarter):
        rows = j, min(j + quarter, last), min(j + 2 * quarter, last), min(j + 3 * quarter, last)
        i = 0
        while i + BLOCK_ROWS <= M:
            put(out, i, rows, dot_block(x, i, w, scale, rows, BLOCK_ROWS))
            i += BLOCK_ROWS
        while i < M:
            put(out, i, rows, dot_block(x, i, w, scale, rows, 1))
            i += 1
    add_rest(x, w, out)


@jit
def put(out, i, rows, sums):
    """The block of out (M, N) from row i on, in these four columns = sums."""
    for n in range(len(sums)):
        out[i + n // STREAMS, rows[n % STREAMS]] = sums[n]


def dot_block(x, i, w, scale, rows, count):
    """`count` rows of x (M, K), from row i on, @ these four rows of w -> 4 * count sums, a tuple.

    The last K % lanes of each row are left to add_rest.
    """
    K = x.shape[1] - x.shape[1] % (VECTOR // x.itemsize)
    chosen = np.empty((STREAMS, K), x.dtype)
    for n, j in enumerate(rows):
        widen_part(w, scale, j, 0, K, chosen[n])
    return tuple((x[i : i + count, :K] @ chosen.T).reshape(-1))


@overload(dot_block, prefer_literal=True)
def _(x, i, w, scale, rows, count):
    return lambda x, i, w, scale, rows, count: dot_vectors(x, i, w, scale, rows, count)


@intrinsic(prefer_literal=True)
def dot_vectors(typing_context, x, i, w, scale, rows, count):
    """The vector instructions of dot_block: a loop over k around a vector for each sum."""
    count = count.literal_value
    result = types.UniTuple(x.dtype, STREAMS * count)

    def generate(context, builder, signature, arguments):
        x, w, scale = (Matrix(context, builder, signature.args[n], arguments[n]) for n in (0, 2, 3))
        vector = ir.VectorType(x.element, x.lanes)
        fma = fma_of(builder, vector, x.bits)
        dtype = str(signature.args[2].dtype)
        step, unit, read = READERS[dtype](builder, x, w, scale)
        js = [builder.extract_value(arguments[4], n) for n in range(STREAMS)]
        starts = [
            x.pointer(builder.add(arguments[1], integer(n)), integer(0)) for n in range(count)
        ]
        K = builder.and_(x.shape[1], integer(-step))
        zeros = [ir.Constant(vector, [0.0] * x.lanes)] * (STREAMS * count)
        before, loop = builder.block, builder.append_basic_block("k")
        done = builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", integer(0), K), loop, done)

        builder.position_at_end(loop)
        k = builder.phi(ir.IntType(64))
        sums = [builder.phi(vector) for _ in zeros]
        totals = list(sums)
        if dtype in PREFETCHED:
            prefetch_streams(builder, w, js, k, step)
        parts = [read(j, k) for j in js]
        for n, start in enumerate(starts):
            here = builder.gep(start, [k])
            for m, (vectors, factor) in enumerate(parts):
                total = totals[n * STREAMS + m] if factor is None else zeros[0]
                for offset, weights in vectors:
                    xs = x.load(builder.gep(here, [integer(offset)]), x.lanes)
                    total = builder.call(fma, [xs, weights, total])
                if factor is not None:
                    total = builder.call(fma, [total, factor, totals[n * STREAMS + m]])
                totals[n * STREAMS + m] = total
        following = builder.add(k, integer(step))
        k.add_incoming(integer(0), before)
        k.add_incoming(following, loop)
        for total, after, zero in zip(sums, totals, zeros, strict=True):
            total.add_incoming(zero, before)
            total.add_incoming(after, loop)
        builder.cbranch(builder.icmp_signed("<", following, K), loop, done)

        builder.position_at_end(done)
        ends = [builder.phi(vector) for _ in zeros]
        for end, after, zero in zip(ends, totals, zeros, strict=True):
            end.add_incoming(zero, before)
            end.add_incoming(after, loop)
        factor = ir.Constant(x.element, unit)
        each = [builder.fmul(total, factor) for total in add_lanes(builder, ends)]
        return context.make_tuple(builder, result, each)

    return result(x, i, w, scale, rows, types.literal(count)), generate


def prefetch_streams(builder, w, js, k, step):
    """Prefetch the rows js of w, AHEAD bytes after k: each of the four streams in its turn.

    With each k, `step` numbers of a row are read. (int8's lines are asked for twice with AVX2.)
    Near the end of w an address may lie beyond it: to prefetch what does not exist is no error.
    """
    share = LINE // (STREAMS * w.itemsize)  # numbers of a row for each line prefetched
    apart = builder.mul(builder.sub(js[1], js[0]), w.strides[0])
    start = w.pointer(js[0], builder.add(k, integer(AHEAD // w.itemsize)))
    first = builder.udiv(k, integer(share))
    for n in range(max(1, step // share)):
        stream = builder.and_(builder.add(first, integer(n)), integer(STREAMS - 1))
        w.prefetch(builder.gep(start, [builder.mul(stream, apart)]), write=False)


@jit
def add_rest(x, w, out):
    """Add to out (M, N) what dot_block has left: the products of the last numbers of each row."""
    M, N = out.shape
    K, lanes = x.shape[1], VECTOR // x.itemsize
    for k in range(K - K % lanes, K):  # none with int4, whose K is a multiple of 32
        for i in range(M):
            for j in range(N):
                out[i, j] += x[i, k] * as_float(w[j, k])


@jit
def weighted_sum(weights, x, out):
    """out (K,) = weights (N,) @ x (N, K), which is read as four streams, as in dot_rows."""
    out[:] = 0
    quarter = len(x) // 4
    for j in range(quarter):
        j1, j2, j3 = j + quarter, j + 2 * quarter, j + 3 * quarter
        p0, p1, p2, p3 = weights[j], weights[j1], weights[j2], weights[j3]
        x0, x1, x2, x3 = x[j], x[j1], x[j2], x[j3]
        for k in range(out.size):
            out[k] += p0 * x0[k] + p1 * x1[k] + p2 * x2[k] + p3 * x3[k]
    for j in range(4 * quarter, len(x)):
        xj = x[j]
        for k in range(out.size):
            out[k] += weights[j] * xj[k]

"""The tile of gemm.py, and what its packing moves at a time, in vector instructions.

A tile is MR x 3 vectors of sums in registers. With one row of b (3 vectors) and one element of a,
that takes 28 of the 32 registers of AVX-512 (512 bits each), the 16 of AVX2 (256), the 32 of ARM
(128).
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from npgpt.kernels.codegen.vectors import (
    AVX512,
    Matrix,
    add_tile,
    broadcast,
    fma_of,
    integer,
    transpose_rows,
)

MR = 8 if AVX512 else 4
PREFETCH_ROWS = 8  # how many rows of b ahead of the multiplication are prefetched from L2


def tile(a, b, K, c, c_init, m, n, width):
    """The tile of c at m, n = c_init's + a[:K].T @ b[:K], packed panels; as in gemm.

    It is MR rows by `width` vectors of the panel's 3, a number in the source. a (K, MR) can also be
    the transposed view of MR contiguous rows.
    """
    columns = width * b.shape[1] // 3
    where = slice(m, m + a.shape[1]), slice(n, n + columns)
    with np.errstate(all="ignore"):  # of the rest of a panel, which may hold anything
        c[where] = a[:K].T @ b[:K, :columns] + (c_init[where] if c_init.size else 0)


def tile_of_rows(rows, b, K, c, c_init, width, following):
    """c = c_init + rows[:, :K] @ b[:K], as tile has it, for contiguous rows (MR, K or more).

    Meanwhile the next rows are prefetched instead of b, the first MR of `following`, one cache line
    with each k: if all were at once, the core would wait for them. There may be fewer rows, or
    none, for to prefetch what does not exist is no error.
    """
    tile(rows.T, b, K, c, c_init, 0, 0, width)


def transpose(x, i, j, out, m, n):
    """The MR x MR block of out at m, n = that of x at i, j, transposed; rows are contiguous."""
    out[m : m + MR, n : n + MR] = x[i : i + MR, j : j + MR].T


def copy(x, i, j, out, m, n):
    """The MR x MR block of out at m, n = that of x at i, j; rows are contiguous."""
    out[m : m + MR, n : n + MR] = x[i : i + MR, j : j + MR]


@overload(tile, prefer_literal=True)
def _(a, b, K, c, c_init, m, n, width):
    return lambda a, b, K, c, c_init, m, n, width: tile_vectors(a, b, K, c, c_init, m, n, width)


@overload(tile_of_rows, prefer_literal=True)
def _(rows, b, K, c, c_init, width, following):
    return lambda rows, b, K, c, c_init, width, following: tile_of_rows_vectors(
        rows, b, K, c, c_init, width, following
    )


@overload(transpose)
def _(x, i, j, out, m, n):
    return lambda x, i, j, out, m, n: transpose_vectors(x, i, j, out, m, n)


@overload(copy)
def _(x, i, j, out, m, n):
    return lambda x, i, j, out, m, n: copy_vectors(x, i, j, out, m, n)


@intrinsic(prefer_literal=True)
def tile_vectors(typing_context, a, b, K, c, c_init, m, n, width):
    """The vector instructions of `tile`; with AVX-512 b is prefetched, PREFETCH_ROWS ahead."""
    is_panel = a.layout == "C"

    def generate(context, builder, signature, arguments):
        a, b, c, c_init = (
            Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 3, 4)
        )
        K, m, n = arguments[2], arguments[5], arguments[6]

        apart = (integer(1), integer(MR)) if is_panel else (a.strides[1], integer(1))

        def a_at(k, i):
            row, column = builder.mul(integer(i), apart[0]), builder.mul(k, apart[1])
            return builder.gep(a.data, [builder.add(row, column)])

        def prefetch(k):
            ahead = builder.mul(builder.add(k, integer(PREFETCH_ROWS)), integer(3 * c.lanes))
            for j in range(width.literal_value if AVX512 else 0):
                line = builder.add(ahead, integer(j * c.lanes))
                b.prefetch(builder.gep(b.data, [line]), write=False)

        multiply(builder, a_at, b, K, c, c_init, m, n, width.literal_value, prefetch)
        return context.get_dummy_value()

    return types.void(a, b, K, c, c_init, m, n, width), generate


@intrinsic(prefer_literal=True)
def tile_of_rows_vectors(typing_context, rows, b, K, c, c_init, width, following):
    """The vector instructions of `tile_of_rows`."""

    def generate(context, builder, signature, arguments):
        rows, b, c, c_init, following = (
            Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 3, 4, 6)
        )

        def a_at(k, i):
            return rows.pointer(integer(i), k)

        def prefetch(k):  # MR numbers of row k % MR, so that after MR k each row has had its turn
            row, rest = builder.and_(k, integer(MR - 1)), builder.and_(k, integer(-MR))
            following.prefetch(following.pointer(row, rest), write=False)

        zero = integer(0)
        multiply(
            builder, a_at, b, arguments[2], c, c_init, zero, zero, width.literal_value, prefetch
        )
        return context.get_dummy_value()

    return types.void(rows, b, K, c, c_init, width, following), generate


def multiply(builder, a_at, b, K, c, c_init, m, n, width, prefetch):
    """The code of a tile: a loop over k around MR x width sums in registers.

    a_at(k, i) is the address of the k-th number of a's row i, and prefetch(k) adds what is
    prefetched with each k.
    """
    W, columns = c.lanes, range(width)
    vector = ir.VectorType(c.element, W)
    fma = fma_of(builder, vector, c.bits)
    tile = [(i, j) for i in range(MR) for j in columns]
    corner, one_by_one = c.pointer(m, n), AVX512 and width > 1
    if not one_by_one:
        for pointer in c.pointers(m, n, tile).values():
            c.prefetch(pointer, write=True)
    before, loop = builder.block, builder.append_basic_block("k")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(ir.IntType(64))
    sums = {ij: builder.phi(vector) for ij in tile}
    bk = builder.gep(b.data, [builder.mul(k, integer(3 * W))])
    prefetch(k)
    if one_by_one:
        c.prefetch(builder.gep(corner, [of_tile(builder, c, k, width)]), write=True)
    row = [b.load(builder.gep(bk, [integer(j * W)]), W) for j in columns]
    totals = {}
    for i in range(MR):
        x = broadcast(builder, builder.load(a_at(k, i)), vector)
        for j in columns:
            totals[i, j] = builder.call(fma, [x, row[j], sums[i, j]])
    following = builder.add(k, integer(1))
    k.add_incoming(integer(0), before)
    k.add_incoming(following, loop)
    for ij in tile:
        sums[ij].add_incoming(ir.Constant(vector, [0.0] * W), before)
        sums[ij].add_incoming(totals[ij], loop)
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", following, K), loop, done)
    builder.position_at_end(done)
    add_tile(builder, c, c_init, m, n, totals)


def of_tile(builder, c, k, width):
    """The offset of the k-th vector of a tile from its corner, column by column; at last again.

    They are prefetched one by one: all at once, they would keep vectors of b from coming. (Not with
    shorter vectors than AVX-512's or a width of 1: there a k is so short that this costs more.)
    """
    row, column = builder.and_(k, integer(MR - 1)), builder.udiv(k, integer(MR))
    last = integer(width - 1)
    column = builder.select(builder.icmp_unsigned("<", column, last), column, last)
    return builder.add(builder.mul(row, c.strides[0]), builder.mul(column, integer(c.lanes)))


@intrinsic
def transpose_vectors(typing_context, x, i, j, out, m, n):
    """The vector instructions of `transpose`."""

    def generate(context, builder, signature, arguments):
        rows, pointers = block(context, builder, signature, arguments)
        transpose_rows(builder, rows)
        for row, pointer in zip(rows, pointers, strict=True):
            builder.store(row, pointer).align = 4
        return context.get_dummy_value()

    return types.void(x, i, j, out, m, n), generate


@intrinsic
def copy_vectors(typing_context, x, i, j, out, m, n):
    """The vector instructions of `copy`."""

    def generate(context, builder, signature, arguments):
        for row, pointer in zip(*block(context, builder, signature, arguments), strict=True):
            builder.store(row, pointer).align = 4
        return context.get_dummy_value()

    return types.void(x, i, j, out, m, n), generate


def block(context, builder, signature, arguments):
    """For copy and transpose: the rows of x's block as vectors, and pointers to those of out's."""
    x = Matrix(context, builder, signature.args[0], arguments[0])
    out = Matrix(context, builder, signature.args[3], arguments[3])
    i, j, m, n = (arguments[k] for k in (1, 2, 4, 5))
    vector = ir.VectorType(x.element, MR).as_pointer()
    rows = [x.load(x.pointer(builder.add(i, integer(r)), j), MR) for r in range(MR)]
    pointers = [out.pointer(builder.add(m, integer(r)), n) for r in range(MR)]
    return rows, [builder.bitcast(pointer, vector) for pointer in pointers]

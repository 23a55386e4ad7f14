"""The product of gemm.py on the CPU's units for bf16, the upper half of a float32; sums in float32.

`gemm_bf16` rounds the elements of a and b to bf16. `gemm_bf16x3` splits each into two of them, high
and low, and adds three products, high @ high + high @ low + low @ high: nearly what float32 gives,
at a third of the speed.

The units multiply pairs of k. So both factors are packed as pairs, 32 bits each, in squares of 16
rows (or columns) by 16 pairs: a's squares are [row, pair], b's [pair, column]. A panel is 32 rows
of a, or columns of b, and K: for every 32 k two squares, one after the other.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels import amx
from npgpt.kernels.amx import load, multiply, store, zero
from npgpt.kernels.gemm import SCRATCH, Matrix, gemm_signature, integer, shuffle, transpose_rows
from npgpt.kernels.halves import nearest, widened
from npgpt.kernels.jit import jit

SIDE = 16  # of a square
SQUARE = SIDE * SIDE  # pairs
KC = 384  # of a panel of a, 24 KiB, which a first-level cache holds beside what passes through
ROOM = SCRATCH - 4 * SQUARE - SIDE * KC  # for b's panels
NC = ROOM // (KC // 2) // 32 * 32
SHAPES = amx.SHAPES


@cache
def gemm_bf16_for(split):
    """gemm_bf16 or, with split, gemm_bf16x3, compiled: it takes the place of gemm_for's."""
    return jit(gemm_bf16x3 if split else gemm_bf16, signature=gemm_signature(np.dtype("f4")))


def gemm_bf16(a, b, c, add, scratch):
    """As gemm, with a and b rounded to bf16."""
    gemm_parts(a, b, c, add, scratch.view(np.uint32), 1)


def gemm_bf16x3(a, b, c, add, scratch):
    """As gemm, with a and b each the sum of two bf16."""
    gemm_parts(a, b, c, add, scratch.view(np.uint32), 2)


@jit
def gemm_parts(a, b, c, add, scratch, parts):
    """c (M, N) = or, with add, += a (M, K) @ b (K, N), of `parts` bf16 an element."""
    M, K = a.shape
    N = b.shape[1]
    edge = scratch[: 4 * SQUARE].view(np.float32).reshape(32, 32)
    apanel = scratch[4 * SQUARE : 4 * SQUARE + SIDE * KC]
    bpanels = scratch[4 * SQUARE + SIDE * KC :]
    depth = KC // parts
    if K == 0 and not add:
        c[:, :] = 0
    amx.begin(SHAPES)
    for n0 in range(0, N, NC):
        n1 = min(n0 + NC, N)
        for k0 in range(0, K, depth):
            k1 = min(k0 + depth, K)
            adding = add or k0 > 0
            steps = (k1 - k0 + 31) // 32
            size = 2 * SQUARE * steps * parts  # of a panel
            pack(b[k0:k1, n0:n1].T, bpanels, True, parts)
            for m in range(0, M, 32):
                pack(a[m : min(m + 32, M), k0:k1], apanel, False, parts)
                for n in range(n0, n1, 32):
                    bpanel = bpanels[(n - n0) // 32 * size :]
                    if m + 32 <= M and n + 32 <= n1:
                        tile(apanel, bpanel, steps, parts, c[m:, n:], adding)
                    else:
                        corner = c[m : m + 32, n:n1][:, :32]
                        if adding:
                            copy(corner, edge)
                        tile(apanel, bpanel, steps, parts, edge, adding)
                        copy(edge, corner)
    amx.end()


@jit
def copy(x, out):
    """Fills as much of out as x has, both of up to 32 x 32."""
    for i in range(min(len(x), len(out))):
        for j in range(min(x.shape[1], out.shape[1])):
            out[i, j] = x[i, j]


@jit
def tile(a, b, steps, parts, c, add):
    """The 32 x 32 corner of c = or += panel a @ panel b: in tiles 0 to 3, by way of 4 to 7."""
    row = c.strides[0] // c.itemsize
    if add:
        load(0, c, 0, row)
        load(1, c, 16, row)
        load(2, c, 16 * row, row)
        load(3, c, 16 * row + 16, row)
    else:
        zero(0)
        zero(1)
        zero(2)
        zero(3)
    for product in range(2 * parts - 1):  # high @ high, high @ low, low @ high
        ai = 2 * SQUARE * steps * (product // 2)
        bi = 2 * SQUARE * steps * (product % 2)
        for step in range(steps):
            at = 2 * SQUARE * step
            load(4, a, ai + at, SIDE)
            load(6, b, bi + at, SIDE)
            multiply(0, 4, 6)
            load(7, b, bi + at + SQUARE, SIDE)
            multiply(1, 4, 7)
            load(5, a, ai + at + SQUARE, SIDE)
            multiply(2, 5, 6)
            multiply(3, 5, 7)
    store(0, c, 0, row)
    store(1, c, 16, row)
    store(2, c, 16 * row, row)
    store(3, c, 16 * row + 16, row)


@jit
def pack(x, panels, turned, parts):
    """x (n, K) -> its panels, one after the other; squares are [row, pair] or, turned, [pair, row].

    What is beyond x counts as 0. A panel of two parts has all of the high one, then the low one.
    """
    n, K = x.shape
    rows, columns = x.strides[1] == x.itemsize, x.strides[0] == x.itemsize  # which are dense
    at = 0
    for i in range(0, n, 32):
        for part in range(parts):
            for k in range(0, K, 32):
                for j in (i, i + SIDE):
                    square = panels[at : at + SQUARE]
                    at += SQUARE
                    if not (rows or columns) or j + SIDE > n or k + 32 > K:
                        convert(x[j : j + SIDE, k : k + 32], square, turned, part)
                    elif rows:
                        convert_rows(x, j, k, square, turned, part)
                    else:
                        convert_columns(x, j, k, square, turned, part)


@jit
def convert(x, square, turned, part):
    """The square of x (up to 16, up to 32), an element at a time."""
    square[:] = 0
    halves = square.view(np.uint16)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            at = 2 * SIDE * (k // 2) + 2 * i + k % 2 if turned else 2 * SIDE * i + k
            halves[at] = bf16(x[i, k], part)


@jit
def bf16(x, part):
    """The bits of the bf16 nearest to x or, for part 1, to what part 0 leaves of x."""
    if part == 1:
        x -= widened(nearest(x))
    return nearest(x)


@jit
def convert_rows(x, i, k, square, turned, part):
    """As convert, of all of x[i : i + 16, k : k + 32], whose rows are dense."""
    if turned and part:
        row_vectors(x, i, k, square, 1, 1)
    elif turned:
        row_vectors(x, i, k, square, 1, 0)
    elif part:
        row_vectors(x, i, k, square, 0, 1)
    else:
        row_vectors(x, i, k, square, 0, 0)


@jit
def convert_columns(x, i, k, square, turned, part):
    """As convert, of all of x[i : i + 16, k : k + 32], whose columns are dense."""
    if turned and part:
        pair_vectors(x.T, k, i, square, 0, 1)
    elif turned:
        pair_vectors(x.T, k, i, square, 0, 0)
    elif part:
        pair_vectors(x.T, k, i, square, 1, 1)
    else:
        pair_vectors(x.T, k, i, square, 1, 0)


@intrinsic(prefer_literal=True)
def row_vectors(typing_context, x, i, k, square, turned, part):
    """Square [row, pair] or, turned, [pair, row] of x[i : i + 16, k : k + 32], by vectors."""

    def generate(context, builder, signature, arguments):
        x, i, k, square = operands(context, builder, signature, arguments)
        rows = []
        for row in range(SIDE):
            start = x.at(builder.add(i, integer(row)), k)
            halves = [builder.gep(start, [integer(SIDE * half)]) for half in (0, 1)]
            rows.append(to_bf16(builder, *(x.load(half, SIDE) for half in halves), part))
        store_square(builder, rows, square, turned)
        return context.get_dummy_value()

    return types.void(x, i, k, square, turned, part), generate


@intrinsic(prefer_literal=True)
def pair_vectors(typing_context, x, k, i, square, turned, part):
    """Square [pair, column] or, turned, [column, pair] of x[k : k + 32, i : i + 16], by vectors."""

    def generate(context, builder, signature, arguments):
        x, k, i, square = operands(context, builder, signature, arguments)
        alternate = [SIDE * (lane % 2) + lane // 2 for lane in range(2 * SIDE)]
        rows = []
        for pair in range(SIDE):
            both = [x.at(builder.add(k, integer(2 * pair + one)), i) for one in (0, 1)]
            halves = to_bf16(builder, *(x.load(one, SIDE) for one in both), part)
            rows.append(shuffle(builder, halves, halves, alternate))
        store_square(builder, rows, square, turned)
        return context.get_dummy_value()

    return types.void(x, k, i, square, turned, part), generate


def operands(context, builder, signature, arguments):
    x, i, k, square, *_ = arguments
    x = Matrix(context, builder, signature.args[0], x)
    return x, i, k, Matrix(context, builder, signature.args[3], square)


def store_square(builder, rows, square, turned):
    """16 vectors of 32 bf16 become the square; turned: its pairs' columns."""
    pairs = ir.VectorType(ir.IntType(32), SIDE)
    rows = [builder.bitcast(row, pairs) for row in rows]
    if turned.literal_value:
        transpose_rows(builder, rows)
    for i, row in enumerate(rows):
        square.store(row, builder.gep(square.data, [integer(SIDE * i)]))


class Bfloat(ir.Type):
    """LLVM's type bfloat, which llvmlite does not name."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, Bfloat)

    def __hash__(self):
        return hash(Bfloat)


def to_bf16(builder, low, high, part):
    """Two vectors of 16 float32 -> one of 32 bf16, low first, by an instruction for just that."""

    def rounded(high, low):
        kind = ir.FunctionType(ir.VectorType(Bfloat(), 2 * SIDE), [high.type, low.type])
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        made = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [high, low])
        return builder.bitcast(made, halves)

    halves = ir.VectorType(ir.IntType(16), 2 * SIDE)
    zeros = ir.Constant(halves, [0] * 2 * SIDE)
    both = rounded(high, low)
    if not part.literal_value:
        return both
    rests = []
    for i, x in enumerate((low, high)):
        lanes = [2 * SIDE if lane % 2 == 0 else SIDE * i + lane // 2 for lane in range(2 * SIDE)]
        widened = shuffle(builder, both, zeros, lanes)  # each bf16 the upper half of 32 bits
        rests.append(builder.fsub(x, builder.bitcast(widened, x.type)))
    return rounded(*rests[::-1])

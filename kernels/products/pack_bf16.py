"""What gemm_bf16 does with its factors first: bf16, in the order in which the units want them.

They multiply pairs of k. So both factors are packed as pairs, 32 bits each, in squares of 16 rows
(or columns) by 16 pairs: a's squares are [row, pair], b's [pair, column].
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import Matrix, integer, shuffle, transpose_rows
from npgpt.kernels.numerics.bfloat16 import nearest, widened

SIDE = 16  # of a square
SQUARE = SIDE * SIDE  # pairs
ACROSS = 3  # squares of b side by side
NR = ACROSS * SIDE


@jit
def pack(x, panels, turned, parts, across):
    """x (n, K) -> its panels, one after the other; squares are [row, pair] or, turned, [pair, row].

    A panel is 16 * across rows of x. What is beyond x counts as 0. A panel of two parts has all of
    the high one, then the low one.
    """
    n, K = x.shape
    wide = SIDE * across
    if x.strides[1] != x.itemsize and x.strides[0] == x.itemsize:  # columns are dense
        for k in range(0, K, 32):
            for i in range(0, n, wide):
                for j in range(across):
                    pack_square(x, i, j, k, panels, turned, parts, across)
    else:  # along 16 rows at a time, not all of a panel's: see fetch.py
        for i in range(0, n, wide):
            for j in range(across):
                for k in range(0, K, 32):
                    pack_square(x, i, j, k, panels, turned, parts, across)


@jit
def pack_square(x, i, j, k, panels, turned, parts, across):
    """The j-th square of the panel that begins with row i, of x[:, k : k + 32], to its place."""
    n, K = x.shape
    dense_rows, dense_columns = x.strides[1] == x.itemsize, x.strides[0] == x.itemsize
    steps, row = (K + 31) // 32, i + SIDE * j
    for part in range(parts):
        at = SQUARE * (steps * (i // SIDE * parts + part * across) + k // 32 * across + j)
        if not (dense_rows or dense_columns) or row + SIDE > n or k + 32 > K:
            convert(x, row, k, panels[at : at + SQUARE], turned, part)
        elif dense_rows:
            convert_rows(x, row, k, panels, at, turned, part)
        else:
            convert_columns(x, row, k, panels, at, turned, part)


@jit
def convert(x, i, k, square, turned, part):
    """The square of x[i : i + 16, k : k + 32], or what there is of it, an element at a time."""
    square[:] = 0
    halves = square.view(np.uint16)
    for r in range(min(SIDE, x.shape[0] - i)):
        for p in range(min(2 * SIDE, x.shape[1] - k)):
            at = 2 * SIDE * (p // 2) + 2 * r + p % 2 if turned else 2 * SIDE * r + p
            halves[at] = bf16(x[i + r, k + p], part)


@jit
def bf16(x, part):
    """The bits of the bf16 nearest to x or, for part 1, to what part 0 leaves of x."""
    if part == 1:
        x -= widened(nearest(x))
    return nearest(x)


@jit
def convert_rows(x, i, k, squares, at, turned, part):
    """As convert, of all of x[i : i + 16, k : k + 32], whose rows are dense, to squares[at:]."""
    if turned and part:
        row_vectors(x, i, k, squares, at, 1, 1)
    elif turned:
        row_vectors(x, i, k, squares, at, 1, 0)
    elif part:
        row_vectors(x, i, k, squares, at, 0, 1)
    else:
        row_vectors(x, i, k, squares, at, 0, 0)


@jit
def convert_columns(x, i, k, squares, at, turned, part):
    """As convert, of all of x[i : i + 16, k : k + 32], whose columns are dense, to squares[at:]."""
    if turned and part:
        pair_vectors(x.T, k, i, squares, at, 0, 1)
    elif turned:
        pair_vectors(x.T, k, i, squares, at, 0, 0)
    elif part:
        pair_vectors(x.T, k, i, squares, at, 1, 1)
    else:
        pair_vectors(x.T, k, i, squares, at, 1, 0)


@intrinsic(prefer_literal=True)
def row_vectors(typing_context, x, i, k, squares, at, turned, part):
    """Square [row, pair] or, turned, [pair, row] of x[i : i + 16, k : k + 32], by vectors."""

    def generate(context, builder, signature, arguments):
        x, i, k, squares, at = operands(context, builder, signature, arguments)
        rows = []
        for row in range(SIDE):
            start = x.at(builder.add(i, integer(row)), k)
            halves = [builder.gep(start, [integer(SIDE * half)]) for half in (0, 1)]
            rows.append(to_bf16(builder, *(x.load(half, SIDE) for half in halves), part))
        store_square(builder, rows, squares, at, turned)
        return context.get_dummy_value()

    return types.void(x, i, k, squares, at, turned, part), generate


@intrinsic(prefer_literal=True)
def pair_vectors(typing_context, x, k, i, squares, at, turned, part):
    """Square [pair, column] or, turned, [column, pair] of x[k : k + 32, i : i + 16], by vectors."""

    def generate(context, builder, signature, arguments):
        x, k, i, squares, at = operands(context, builder, signature, arguments)
        alternate = [SIDE * (lane % 2) + lane // 2 for lane in range(2 * SIDE)]
        rows = []
        for pair in range(SIDE):
            both = [x.at(builder.add(k, integer(2 * pair + one)), i) for one in (0, 1)]
            halves = to_bf16(builder, *(x.load(one, SIDE) for one in both), part)
            rows.append(shuffle(builder, halves, halves, alternate))
        store_square(builder, rows, squares, at, turned)
        return context.get_dummy_value()

    return types.void(x, k, i, squares, at, turned, part), generate


def operands(context, builder, signature, arguments):
    x, i, k, squares, at, *_ = arguments
    x = Matrix(context, builder, signature.args[0], x)
    return x, i, k, Matrix(context, builder, signature.args[3], squares), at


def store_square(builder, rows, squares, at, turned):
    """16 vectors of 32 bf16 become the square at `at`; turned: its pairs' columns."""
    pairs = ir.VectorType(ir.IntType(32), SIDE)
    rows = [builder.bitcast(row, pairs) for row in rows]
    if turned.literal_value:
        transpose_rows(builder, rows)
    for i, row in enumerate(rows):
        squares.store(row, builder.gep(squares.data, [builder.add(at, integer(SIDE * i))]))


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

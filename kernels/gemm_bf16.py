"""The product of gemm.py on the CPU's units for bf16, the upper half of a float32; sums in float32.

`gemm_bf16` rounds the elements of a and b to bf16. `gemm_bf16x3` splits each into two of them, high
and low, and adds three products, high @ high + high @ low + low @ high: nearly what float32 gives,
at a third of the speed.

The units multiply pairs of k. So both factors are packed as pairs, 32 bits each, in squares of 16
rows (or columns) by 16 pairs: a's squares are [row, pair], b's [pair, column]. A panel of a is 16
rows and K, one square for every 32 k; a panel of b is 48 columns and K, three for every 32 k. A
block of a stays in the second-level cache while panel after panel of b is packed and multiplied.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels import amx
from npgpt.kernels.amx import fetch_to_write, load, multiply, store, zero
from npgpt.kernels.gemm import SCRATCH, Matrix, gemm_signature, integer, shuffle, transpose_rows
from npgpt.kernels.halves import nearest, widened
from npgpt.kernels.jit import jit

SIDE = 16  # of a square
SQUARE = SIDE * SIDE  # pairs
ACROSS = 3  # squares of b, and tiles of c, side by side
NR = ACROSS * SIDE
KC = 768  # of a panel of b, 72 KiB, and of a block of a: both stay in a second-level cache of 2 MiB
ROOM = SCRATCH - SIDE * NR - NR * KC // 2  # for a's panels
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
    edge = scratch[: SIDE * NR].view(np.float32).reshape(SIDE, NR)
    bpanel = scratch[SIDE * NR : SIDE * NR + NR * KC // 2]
    apanels = scratch[SIDE * NR + NR * KC // 2 :]
    if K == 0 and not add:
        c[:, :] = 0
    amx.begin(SHAPES)
    for k0 in range(0, K, KC // parts):
        k1 = min(k0 + KC // parts, K)
        adding = add or k0 > 0
        steps = (k1 - k0 + 31) // 32
        size = SQUARE * steps * parts  # of a panel of a
        panels, fitting = (M + SIDE - 1) // SIDE, ROOM // size
        blocks = (panels + fitting - 1) // fitting
        MC = (panels + blocks - 1) // blocks * SIDE
        for m0 in range(0, M, MC):
            m1 = min(m0 + MC, M)
            pack(a[m0:m1, k0:k1], apanels, False, parts, 1)
            for n in range(0, N, NR):
                pack(b[k0:k1, n : min(n + NR, N)].T, bpanel, True, parts, ACROSS)
                whole = m0 + (m1 - m0) // SIDE * SIDE if n + NR <= N else m0
                tiles(apanels, 0, bpanel, steps, parts, c, m0, whole, n, adding)
                for m in range(whole, m1, SIDE):
                    corner = c[m : m + SIDE, n : n + NR]
                    if adding:
                        copy(corner, edge)
                    at = (m - m0) // SIDE * size
                    tiles(apanels, at, bpanel, steps, parts, edge, 0, SIDE, 0, adding)
                    copy(edge, corner)
    amx.end()


@jit
def copy(x, out):
    """Fills as much of out as x has, both of up to 16 x 48."""
    for i in range(min(len(x), len(out))):
        for j in range(min(x.shape[1], out.shape[1])):
            out[i, j] = x[i, j]


@jit
def tiles(a, at, b, steps, parts, c, m0, m1, n, add):
    """c[m0:m1, n : n + 48] = or += the panels of a from a[at] on @ panel b, 16 rows at a time.

    A tile of c is in the CPU's tiles 0 to 2, by way of 3 and 4. With all eight of them in use, for
    32 x 32 of c, a product would take a quarter less loads, but twice the time while another
    program runs on the core's other hyperthread.
    """
    row = c.strides[0] // c.itemsize
    for m in range(m0, m1, SIDE):
        corner = row * m + n
        if add:
            load(0, c, corner, row)
            load(1, c, corner + SIDE, row)
            load(2, c, corner + 2 * SIDE, row)
        else:
            zero(0)
            zero(1)
            zero(2)
        for product in range(2 * parts - 1):  # high @ high, high @ low, low @ high
            ai = at + SQUARE * steps * (product // 2)
            bi = ACROSS * SQUARE * steps * (product % 2)
            for step in range(steps):
                if product == 0 and step < SIDE // 2:  # the tile below comes next
                    for j in range(n, n + NR, SIDE):
                        fetch_to_write(c, m + SIDE + 2 * step, j)
                        fetch_to_write(c, m + SIDE + 2 * step + 1, j)
                load(3, a, ai, SIDE)
                load(4, b, bi, SIDE)
                multiply(0, 3, 4)
                load(4, b, bi + SQUARE, SIDE)
                multiply(1, 3, 4)
                load(4, b, bi + 2 * SQUARE, SIDE)
                multiply(2, 3, 4)
                ai += SQUARE
                bi += ACROSS * SQUARE
        store(0, c, corner, row)
        store(1, c, corner + SIDE, row)
        store(2, c, corner + 2 * SIDE, row)
        at += SQUARE * steps * parts


@jit
def pack(x, panels, turned, parts, across):
    """x (n, K) -> its panels, one after the other; squares are [row, pair] or, turned, [pair, row].

    A panel is 16 * across rows of x. What is beyond x counts as 0. A panel of two parts has all of
    the high one, then the low one.
    """
    n, K = x.shape
    rows, columns = x.strides[1] == x.itemsize, x.strides[0] == x.itemsize  # which are dense
    at = 0
    for i in range(0, n, SIDE * across):
        for part in range(parts):
            for k in range(0, K, 32):
                for j in range(i, i + SIDE * across, SIDE):
                    if not (rows or columns) or j + SIDE > n or k + 32 > K:
                        convert(x, j, k, panels[at : at + SQUARE], turned, part)
                    elif rows:
                        convert_rows(x, j, k, panels, at, turned, part)
                    else:
                        convert_columns(x, j, k, panels, at, turned, part)
                    at += SQUARE


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

"""Packing for the products in bf16: rounded operands, in the order that the hardware multiplies in.

It multiplies pairs of k. So both operands are packed as pairs, 32 bits each, in tiles of 16 rows
(or columns) by 16 pairs: a's tiles are [row, pair], b's are [pair, column].
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import Matrix, integer, shuffle, transpose_rows
from npgpt.kernels.numerics.bfloat16 import bf16_bits, bf16_value

TILE_ROWS = 16  # rows, or columns, or pairs of k
TILE_PAIRS = TILE_ROWS * TILE_ROWS
TILE_K = 2 * TILE_ROWS
PANEL_TILES = 3  # tiles of b side by side in a panel
NR = PANEL_TILES * TILE_ROWS  # columns of a panel of b


@jit
def pack(x, panels, transposed, n_terms, panel_tiles):
    """x (n, K) -> its panels, one by one; tiles are [row, pair] or, transposed, [pair, row].

    A panel is 16 * panel_tiles rows of x, padded with zeros. With two terms it has all of the high
    one, then all of the low one.
    """
    n, K = x.shape
    panel_rows = TILE_ROWS * panel_tiles
    if x.strides[1] != x.itemsize and x.strides[0] == x.itemsize:  # columns are contiguous
        for k in range(0, K, TILE_K):
            for i in range(0, n, panel_rows):
                for j in range(panel_tiles):
                    pack_tile(x, i, j, k, panels, transposed, n_terms, panel_tiles)
    else:  # along 16 rows at a time, not all of a panel's: see memory/prefetch.py
        for i in range(0, n, panel_rows):
            for j in range(panel_tiles):
                for k in range(0, K, TILE_K):
                    pack_tile(x, i, j, k, panels, transposed, n_terms, panel_tiles)


@jit
def pack_tile(x, i, j, k, panels, transposed, n_terms, panel_tiles):
    """Pack x[:, k : k + 32] of the j-th 16 rows of the panel that begins with row i."""
    n, K = x.shape
    rows_contiguous, columns_contiguous = x.strides[1] == x.itemsize, x.strides[0] == x.itemsize
    k_tiles, row = (K + TILE_K - 1) // TILE_K, i + TILE_ROWS * j
    for term in range(n_terms):
        panel = k_tiles * (i // TILE_ROWS * n_terms + term * panel_tiles)  # counted in tiles
        offset = TILE_PAIRS * (panel + k // TILE_K * panel_tiles + j)
        contiguous = rows_contiguous or columns_contiguous
        if not contiguous or row + TILE_ROWS > n or k + TILE_K > K:
            convert(x, row, k, panels[offset : offset + TILE_PAIRS], transposed, term)
        elif rows_contiguous:
            convert_rows(x, row, k, panels, offset, transposed, term)
        else:
            convert_columns(x, row, k, panels, offset, transposed, term)


@jit
def convert(x, i, k, tile, transposed, term):
    """The tile of x[i : i + 16, k : k + 32], padded with zeros, an element at a time."""
    tile[:] = 0
    bits = tile.view(np.uint16)
    for r in range(min(TILE_ROWS, x.shape[0] - i)):
        for p in range(min(TILE_K, x.shape[1] - k)):
            at = TILE_K * (p // 2) + 2 * r + p % 2 if transposed else TILE_K * r + p
            bits[at] = bf16_term(x[i + r, k + p], term)


@jit
def bf16_term(x, term):
    """The bits of the bf16 nearest to x or, for term 1, to what term 0 leaves of x."""
    if term == 1:
        x -= bf16_value(bf16_bits(x))
    return bf16_bits(x)


@jit
def convert_rows(x, i, k, tiles, offset, transposed, term):
    """As convert, of all of x[i : i + 16, k : k + 32], with contiguous rows, to tiles[offset:]."""
    if transposed and term:
        row_vectors(x, i, k, tiles, offset, 1, 1)
    elif transposed:
        row_vectors(x, i, k, tiles, offset, 1, 0)
    elif term:
        row_vectors(x, i, k, tiles, offset, 0, 1)
    else:
        row_vectors(x, i, k, tiles, offset, 0, 0)


@jit
def convert_columns(x, i, k, tiles, offset, transposed, term):
    """As convert_rows, with contiguous columns."""
    if transposed and term:
        pair_vectors(x.T, k, i, tiles, offset, 0, 1)
    elif transposed:
        pair_vectors(x.T, k, i, tiles, offset, 0, 0)
    elif term:
        pair_vectors(x.T, k, i, tiles, offset, 1, 1)
    else:
        pair_vectors(x.T, k, i, tiles, offset, 1, 0)


@intrinsic(prefer_literal=True)
def row_vectors(typing_context, x, i, k, tiles, offset, transposed, term):
    """Tile [row, pair] or, transposed, [pair, row] of x[i : i + 16, k : k + 32], vectorised."""

    def generate(context, builder, signature, arguments):
        x, i, k, tiles, offset = operands(context, builder, signature, arguments)
        rows = []
        for row in range(TILE_ROWS):
            start = x.pointer(builder.add(i, integer(row)), k)
            halves = [builder.gep(start, [integer(TILE_ROWS * half)]) for half in (0, 1)]
            rows.append(round_vectors(builder, *(x.load(half, TILE_ROWS) for half in halves), term))
        store_tile(builder, rows, tiles, offset, transposed)
        return context.get_dummy_value()

    return types.void(x, i, k, tiles, offset, transposed, term), generate


@intrinsic(prefer_literal=True)
def pair_vectors(typing_context, x, k, i, tiles, offset, transposed, term):
    """Tile [pair, column] or, transposed, [column, pair] of x[k : k + 32, i : i + 16]."""

    def generate(context, builder, signature, arguments):
        x, k, i, tiles, offset = operands(context, builder, signature, arguments)
        interleaved = [TILE_ROWS * (lane % 2) + lane // 2 for lane in range(TILE_K)]
        rows = []
        for pair in range(TILE_ROWS):
            both = [x.pointer(builder.add(k, integer(2 * pair + one)), i) for one in (0, 1)]
            bits = round_vectors(builder, *(x.load(one, TILE_ROWS) for one in both), term)
            rows.append(shuffle(builder, bits, bits, interleaved))
        store_tile(builder, rows, tiles, offset, transposed)
        return context.get_dummy_value()

    return types.void(x, k, i, tiles, offset, transposed, term), generate


def operands(context, builder, signature, arguments):
    x, i, k, tiles, offset, *_ = arguments
    x = Matrix(context, builder, signature.args[0], x)
    return x, i, k, Matrix(context, builder, signature.args[3], tiles), offset


def store_tile(builder, rows, tiles, offset, transposed):
    """16 vectors of 32 bf16 become the rows of the tile at offset or, transposed, its columns."""
    pairs = ir.VectorType(ir.IntType(32), TILE_ROWS)
    rows = [builder.bitcast(row, pairs) for row in rows]
    if transposed.literal_value:
        transpose_rows(builder, rows)
    for i, row in enumerate(rows):
        at = builder.add(offset, integer(TILE_ROWS * i))
        tiles.store(row, builder.gep(tiles.data, [at]))


class Bfloat(ir.Type):
    """LLVM's type bfloat, which llvmlite does not name."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, Bfloat)

    def __hash__(self):
        return hash(Bfloat)


def round_vectors(builder, low, high, term):
    """Two vectors of 16 float32 -> one of 32 bf16, low first, by one instruction."""

    def rounded(high, low):
        kind = ir.FunctionType(ir.VectorType(Bfloat(), TILE_K), [high.type, low.type])
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        made = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [high, low])
        return builder.bitcast(made, bits)

    bits = ir.VectorType(ir.IntType(16), TILE_K)
    zeros = ir.Constant(bits, [0] * TILE_K)
    both = rounded(high, low)
    if not term.literal_value:
        return both
    rests = []
    for i, x in enumerate((low, high)):
        lanes = [TILE_K if lane % 2 == 0 else TILE_ROWS * i + lane // 2 for lane in range(TILE_K)]
        widened = shuffle(builder, both, zeros, lanes)  # each bf16 the upper half of 32 bits
        rests.append(builder.fsub(x, builder.bitcast(widened, x.type)))
    return rounded(*rests[::-1])

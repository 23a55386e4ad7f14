"""A packed product in bf16 on CPUs with AVX-512's dot products of bf16, but without AMX tiles.

An instruction makes two products where float32's makes one, at best in the same time. So operands
of two terms, which take three products, do not come here: precision.py makes them float32.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import (
    Matrix,
    add_tile,
    broadcast,
    cpu_features,
    disable_unrolling,
    integer,
)
from npgpt.kernels.memory.prefetch import prefetch_range
from npgpt.kernels.products.pack_bf16 import PANEL_TILES, TILE_K, TILE_PAIRS, TILE_ROWS, Bfloat

MR = 8  # rows of c at a time: with three vectors each, 24 of the CPU's 32 registers


def available():
    """Whether this CPU has them."""
    return "avx512bf16" in cpu_features()


@jit
def multiply_avx512(a, a_offset, b, k_tiles, c, c_init, m0, m1, n, next_a):
    """c[m0:m1, n : n + 48] = c_init's + the panels of a from a[a_offset] on @ the panel b.

    As multiply_amx (gemm_bf16.py), of one term. next_a, which will be packed next, is prefetched
    meanwhile (memory/prefetch.py).
    """
    call = 0
    for m in range(m0, m1, TILE_ROWS):
        for row in range(0, TILE_ROWS, MR):
            first, stride = prefetch_range(next_a, call, TILE_ROWS * k_tiles)
            at = a_offset + TILE_ROWS * row
            dot_vectors(a, at, b, k_tiles, c, c_init, m + row, n, next_a, first, stride)
            call += 1
        a_offset += TILE_PAIRS * k_tiles


@intrinsic
def dot_vectors(typing_context, a, ai, b, k_tiles, c, c_init, m, n, next_a, first, stride):
    """8 x 48 of c at m, n = c_init's + 8 rows of a's tiles from ai on @ b's.

    A loop over pairs of k around 24 vectors of sums: to each lane of one, the instruction adds the
    two products of a pair of a, the same for all lanes, and the lane's pair of b.
    """

    def generate(context, builder, signature, arguments):
        a, b, c, c_init, next_a = (
            Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4, 5, 8)
        )
        _, ai, _, k_tiles, _, _, m, n, _, first, stride = arguments
        vector, halves = ir.VectorType(c.element, TILE_ROWS), ir.VectorType(Bfloat(), TILE_K)
        pairs = ir.VectorType(ir.IntType(32), TILE_ROWS)
        kind = ir.FunctionType(vector, [vector, halves, halves])
        dot = cgutils.get_or_insert_function(
            builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512"
        )
        tile = [(i, j) for i in range(MR) for j in range(PANEL_TILES)]
        for pointer in c.pointers(m, n, tile).values():
            c.prefetch(pointer, write=True)
        before, loop = builder.block, builder.append_basic_block("pair")
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(ir.IntType(64))  # of all tiles, one after the other
        sums = {ij: builder.phi(vector) for ij in tile}
        k_tile, p = builder.lshr(pair, integer(4)), builder.and_(pair, integer(TILE_ROWS - 1))
        from_a = builder.add(builder.add(ai, builder.mul(k_tile, integer(TILE_PAIRS))), p)
        from_b = builder.add(
            builder.mul(k_tile, integer(PANEL_TILES * TILE_PAIRS)),
            builder.mul(p, integer(TILE_ROWS)),
        )
        row = []
        for j in range(PANEL_TILES):
            place = builder.gep(b.data, [builder.add(from_b, integer(TILE_PAIRS * j))])
            row.append(builder.bitcast(b.load(place, TILE_ROWS), halves))
        totals = {}
        for i in range(MR):
            if i == MR // 2:  # LLVM moves no load past it, and so needs no more registers
                element = builder.add(first, builder.mul(pair, stride))
                next_a.prefetch(builder.gep(next_a.data, [element]), write=False)
            x = builder.load(builder.gep(a.data, [builder.add(from_a, integer(TILE_ROWS * i))]))
            x = builder.bitcast(broadcast(builder, x, pairs), halves)
            for j in range(PANEL_TILES):
                totals[i, j] = builder.call(dot, [sums[i, j], x, row[j]])
        following = builder.add(pair, integer(1))
        pair.add_incoming(integer(0), before)
        pair.add_incoming(following, loop)
        for ij in tile:
            sums[ij].add_incoming(ir.Constant(vector, [0.0] * TILE_ROWS), before)
            sums[ij].add_incoming(totals[ij], loop)
        done = builder.append_basic_block("done")
        last = builder.mul(k_tiles, integer(TILE_ROWS))
        disable_unrolling(builder.cbranch(builder.icmp_signed("<", following, last), loop, done))
        builder.position_at_end(done)
        add_tile(builder, c, c_init, m, n, totals)
        return context.get_dummy_value()

    return types.void(a, ai, b, k_tiles, c, c_init, m, n, next_a, first, stride), generate

"""What gemm_bf16 does on CPUs with AVX-512's instructions for bf16, but without tiles.

An instruction makes two products where float32's makes one, at best in the same time. So factors of
two parts, which take three products, do not come here: precision.py makes them float32.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import Matrix, add_tile, integer, keep_rolled, shuffle
from npgpt.kernels.memory.prefetch import lines
from npgpt.kernels.products.pack_bf16 import ACROSS, SIDE, SQUARE, Bfloat

ROWS = 8  # of c at a time: with three vectors each, 24 of the CPU's 32 registers


def granted():
    """Whether this CPU has them."""
    return bool(llvm.get_host_cpu_features().get("avx512bf16", False))


@jit
def dots(a, at, b, steps, c, start, m0, m1, n, coming):
    """c[m0:m1, n : n + 48] = start's + the panels of a from a[at] on @ panel b, as `tiles` does.

    For factors of one part. coming, which will be packed next, is fetched meanwhile (fetch.py).
    """
    call = 0
    for m in range(m0, m1, SIDE):
        for row in range(0, SIDE, ROWS):
            first, apart = lines(coming, call, SIDE * steps)
            dot_vectors(a, at + SIDE * row, b, steps, c, start, m + row, n, coming, first, apart)
            call += 1
        at += SQUARE * steps


@intrinsic
def dot_vectors(typing_context, a, ai, b, steps, c, start, m, n, coming, first, apart):
    """8 x 48 of c at m, n = start's + 8 rows of a's squares from ai on @ b's.

    A loop over pairs of k around 24 vectors of sums: to each lane of one, the instruction adds the
    two products of a pair of a, which all lanes share, and the lane's pair of b.
    """

    def generate(context, builder, signature, arguments):
        a, b, c, start, coming = (
            Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4, 5, 8)
        )
        _, ai, _, steps, _, _, m, n, _, first, apart = arguments
        vector, halves = ir.VectorType(c.element, SIDE), ir.VectorType(Bfloat(), 2 * SIDE)
        pairs = ir.VectorType(ir.IntType(32), SIDE)
        kind = ir.FunctionType(vector, [vector, halves, halves])
        dot = cgutils.get_or_insert_function(
            builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512"
        )
        tile = [(i, j) for i in range(ROWS) for j in range(ACROSS)]
        for pointer in c.places(m, n, tile).values():
            c.fetch(pointer, write=True)
        before, loop = builder.block, builder.append_basic_block("pair")
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(ir.IntType(64))  # of all squares, one after the other
        sums = {ij: builder.phi(vector) for ij in tile}
        square, p = builder.lshr(pair, integer(4)), builder.and_(pair, integer(SIDE - 1))
        from_a = builder.add(builder.add(ai, builder.mul(square, integer(SQUARE))), p)
        from_b = builder.add(
            builder.mul(square, integer(ACROSS * SQUARE)),
            builder.mul(p, integer(SIDE)),
        )
        row = []
        for j in range(ACROSS):
            place = builder.gep(b.data, [builder.add(from_b, integer(SQUARE * j))])
            row.append(builder.bitcast(b.load(place, SIDE), halves))
        totals = {}
        for i in range(ROWS):
            if i == ROWS // 2:  # LLVM moves no load past it, and so needs no more registers
                line = builder.add(first, builder.mul(pair, apart))
                coming.fetch(builder.gep(coming.data, [line]), write=False)
            x = builder.load(builder.gep(a.data, [builder.add(from_a, integer(SIDE * i))]))
            x = builder.insert_element(ir.Constant(pairs, ir.Undefined), x, integer(0))
            x = builder.bitcast(shuffle(builder, x, x, [0] * SIDE), halves)
            for j in range(ACROSS):
                totals[i, j] = builder.call(dot, [sums[i, j], x, row[j]])
        following = builder.add(pair, integer(1))
        pair.add_incoming(integer(0), before)
        pair.add_incoming(following, loop)
        for ij in tile:
            sums[ij].add_incoming(ir.Constant(vector, [0.0] * SIDE), before)
            sums[ij].add_incoming(totals[ij], loop)
        done = builder.append_basic_block("done")
        last = builder.mul(steps, integer(SIDE))
        keep_rolled(builder.cbranch(builder.icmp_signed("<", following, last), loop, done))
        builder.position_at_end(done)
        add_tile(builder, c, start, m, n, totals)
        return context.get_dummy_value()

    return types.void(a, ai, b, steps, c, start, m, n, coming, first, apart), generate

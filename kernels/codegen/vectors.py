"""What kernels write vector instructions with, where compilers do not find them: LLVM's code."""

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils

AVX512 = llvm.get_host_cpu_features().get("avx512f", False)
VECTOR = 64 if AVX512 else 32  # bytes


class Matrix:
    """An array argument of an intrinsic: its data, its strides in elements, vectors at i, j."""

    def __init__(self, context, builder, array_type, value):
        array = cgutils.create_struct_proxy(array_type)(context, builder, value=value)
        self.builder, self.data, self.size = builder, array.data, array.nitems
        self.element = array.data.type.pointee
        self.itemsize = array_type.dtype.bitwidth // 8
        self.lanes = VECTOR // self.itemsize
        size = ir.Constant(ir.IntType(64), self.itemsize)
        self.strides = [
            builder.sdiv(builder.extract_value(array.strides, i), size)
            for i in range(array_type.ndim)
        ]

    def at(self, i, j):
        row = self.builder.mul(self.strides[0], i)
        return self.builder.gep(self.data, [self.builder.add(row, j)])

    def places(self, m, n, tile):
        """Where each (i, j) of a tile at m, n begins, j counting vectors."""
        corner = self.at(m, n)
        steps = {i: self.builder.mul(self.strides[0], integer(i)) for i, _ in tile}
        return {
            (i, j): self.builder.gep(corner, [self.builder.add(steps[i], integer(j * self.lanes))])
            for i, j in tile
        }

    def load(self, pointer, lanes):
        vector = ir.VectorType(self.element, lanes)
        value = self.builder.load(self.builder.bitcast(pointer, vector.as_pointer()))
        value.align = self.itemsize
        return value

    def store(self, value, pointer):
        pointer = self.builder.bitcast(pointer, value.type.as_pointer())
        self.builder.store(value, pointer).align = self.itemsize

    def fetch(self, pointer, write):
        """Ask for the cache line at pointer before it is needed."""
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
        flags = [ir.Constant(word, int(flag)) for flag in (write, 3, 1)]
        self.builder.call(prefetch, [self.builder.bitcast(pointer, byte), *flags])


def integer(value):
    return ir.Constant(ir.IntType(64), value)


def shuffle(builder, x, y, lanes):
    """The vector of the named lanes of x and, from len(x) on, of y."""
    return builder.shuffle_vector(
        x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    )


def transpose_rows(builder, rows):
    """Transpose a list of vectors, as many as each has lanes, where they are.

    Halves, quarters, ... of the rows change places.
    """
    n = len(rows)
    half = n // 2
    while half:  # swap the off-diagonal blocks of every 2 half x 2 half block
        low = [q if not q & half else n + q - half for q in range(n)]
        high = [q + half if not q & half else n + q for q in range(n)]
        for r in range(n):
            if not r & half:
                pair = rows[r], rows[r + half]
                rows[r] = shuffle(builder, *pair, low)
                rows[r + half] = shuffle(builder, *pair, high)
        half //= 2


def keep_rolled(branch):
    """Of the branch that closes a loop: LLVM shall not make two rounds of it into one.

    It found no registers for all of avx512_bf16.py's sums then, and the loop took twice the time.
    """
    module = branch.function.module
    no_unroll = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = ir.values.MDValue(module, [], name=str(len(module.metadata)))
    loop.operands = loop, no_unroll  # that it names itself makes it this loop's
    branch.set_metadata("llvm.loop", loop)


def add_tile(builder, c, start, m, n, totals):
    """The tile of c at m, n = start's + totals, vectors by (i, j); an empty start is zeros."""
    where = c.places(m, n, totals)
    with builder.if_else(cgutils.is_true(builder, start.size)) as (adding, writing):
        with adding:
            begun = start.places(m, n, totals)
            for ij, total in totals.items():
                c.store(builder.fadd(start.load(begun[ij], c.lanes), total), where[ij])
        with writing:
            for ij, total in totals.items():
                c.store(total, where[ij])

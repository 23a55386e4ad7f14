"""What a kernel writes vector instructions with, in LLVM's IR, where compilers do not find them."""

from llvmlite import ir
from numba.core import cgutils, codegen, config


def cpu_features():
    """The names of the extensions that Numba compiles for.

    They are this CPU's, or those that its environment variables leave (NUMBA_CPU_FEATURES).
    """
    named, found = config.CPU_FEATURES, set()
    for name in (codegen.get_host_cpu_features() if named is None else named).split(","):
        (found.add if name.startswith("+") else found.discard)(name[1:])  # the last one counts
    return found


AVX512 = "avx512f" in cpu_features()
VECTOR = 64 if AVX512 else 32  # bytes
LINE = 64  # bytes of a cache line


class Matrix:
    """An array argument of an intrinsic: its data, its strides in elements, vectors at i, j."""

    def __init__(self, context, builder, array_type, value):
        array = cgutils.create_struct_proxy(array_type)(context, builder, value=value)
        self.builder, self.data, self.size = builder, array.data, array.nitems
        self.element = array.data.type.pointee
        self.bits = array_type.dtype.bitwidth
        self.itemsize = self.bits // 8
        self.lanes = VECTOR // self.itemsize
        size = ir.Constant(ir.IntType(64), self.itemsize)
        self.strides = [
            builder.sdiv(builder.extract_value(array.strides, i), size)
            for i in range(array_type.ndim)
        ]
        self.shape = [builder.extract_value(array.shape, i) for i in range(array_type.ndim)]

    def pointer(self, i, j):
        """The address of the element at i, j; rows are contiguous."""
        row = self.builder.mul(self.strides[0], i)
        return self.builder.gep(self.data, [self.builder.add(row, j)])

    def pointers(self, m, n, tile):
        """The address of each (i, j) of a tile at m, n, where j counts vectors."""
        corner = self.pointer(m, n)
        rows = {i: self.builder.mul(self.strides[0], integer(i)) for i, _ in tile}
        return {
            (i, j): self.builder.gep(corner, [self.builder.add(rows[i], integer(j * self.lanes))])
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

    def prefetch(self, pointer, write):
        """Prefetch the cache line at pointer, to read or to write it."""
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
        flags = [ir.Constant(word, int(flag)) for flag in (write, 3, 1)]
        self.builder.call(prefetch, [self.builder.bitcast(pointer, byte), *flags])


def fma_of(builder, vector, bits):
    """LLVM's function (x, y, z) -> x * y + z, rounded once, of vectors of floats of `bits` bits."""
    kind = ir.FunctionType(vector, [vector] * 3)
    name = f"llvm.fma.v{vector.count}f{bits}"
    return cgutils.get_or_insert_function(builder.module, kind, name)


def integer(value):
    return ir.Constant(ir.IntType(64), value)


def shuffle(builder, x, y, lanes):
    """The vector of the named lanes of x and, from len(x) on, of y."""
    return builder.shuffle_vector(
        x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    )


def broadcast(builder, value, vector):
    """A vector of this type with the scalar value in every lane."""
    x = builder.insert_element(ir.Constant(vector, ir.Undefined), value, integer(0))
    return shuffle(builder, x, x, [0] * vector.count)


def transpose_rows(builder, rows):
    """Transpose a list of vectors in place; there are as many as each has lanes.

    Off-diagonal blocks of halves, quarters, ... of the rows are swapped.
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


def add_lanes(builder, vectors):
    """The sum of each vector's lanes, as scalars; how many vectors there are is a power of two.

    Neighbouring lanes are added, of two vectors at a time while there are two: half as many
    vectors, or half as long, have the sums so far.
    """
    left = vectors[0].type.count  # lanes of each sum
    while left > 1:
        if len(vectors) == 1:
            pairs, count = [vectors * 2], vectors[0].type.count
        else:
            pairs, count = zip(vectors[::2], vectors[1::2], strict=True), 2 * vectors[0].type.count
        even, odd = list(range(0, count, 2)), list(range(1, count, 2))
        vectors = [
            builder.fadd(shuffle(builder, *pair, even), shuffle(builder, *pair, odd))
            for pair in pairs
        ]
        left //= 2
    return [builder.extract_element(v, integer(i)) for v in vectors for i in range(v.type.count)]


def disable_unrolling(branch):
    """Forbid LLVM to unroll the loop that this branch closes.

    Unrolled, products/avx512_bf16.py's loop has not enough registers for all of its sums, and takes
    twice the time.
    """
    module = branch.function.module
    no_unroll = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = ir.values.MDValue(module, [], name=str(len(module.metadata)))
    loop.operands = loop, no_unroll  # a loop's metadata names itself first
    branch.set_metadata("llvm.loop", loop)


def add_tile(builder, c, c_init, m, n, sums):
    """The tile of c at m, n = c_init's + sums, vectors by (i, j); an empty c_init is zeros."""
    out = c.pointers(m, n, sums)
    with builder.if_else(cgutils.is_true(builder, c_init.size)) as (adding, writing):
        with adding:
            init = c_init.pointers(m, n, sums)
            for ij, total in sums.items():
                c.store(builder.fadd(c_init.load(init[ij], c.lanes), total), out[ij])
        with writing:
            for ij, total in sums.items():
                c.store(total, out[ij])

"""GEMM, c = c_init + a @ b, in float32 and float64, of matrices of any strides.

Blocked for the caches as in Goto and van de Geijn 2008: a block of b is packed into panels of NR
columns that stay in L2, a panel of MR rows of a into L1. The microkernel, `tile`, keeps MR x NR
sums in registers from the first k to the last. It alone is written in vector instructions, which
compilers do not find for it.

At the shapes of a training step this is faster than NumPy's BLAS, and it leaves Numba's thread pool
the only one: two pools whose threads spin cost a factor of two.
"""

from functools import cache

from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype

from npgpt.kernels.codegen.function_pointers import kernel_at
from npgpt.kernels.codegen.jit import jit
from npgpt.kernels.codegen.vectors import (
    AVX512,
    VECTOR,
    Matrix,
    add_tile,
    broadcast,
    integer,
    transpose_rows,
)

# A tile is MR x 3 vectors: with one row of b (3 vectors) and one element of a, that fills the 32
# registers of AVX-512 (512 bits each), the 16 of AVX2 (256) and the 32 of ARM (128).
MR = 8 if AVX512 else 4
KC = 256  # a panel of b, KC x NR, is 48 KiB
NC = 768  # a block of b, KC x NC, is 768 KiB of float32: it stays in an L2 of 1 MiB
PREFETCH_ROWS = 8  # how many rows of b ahead of the multiplication are prefetched from L2

SCRATCH_SIZE = 220_000  # elements of workspace that a product needs, for packed panels
assert SCRATCH_SIZE >= MR * (3 * VECTOR // 4 + KC) + NC * KC


def tile(a, b, K, c, c_init, m, n, width):
    """The tile of c at m, n = c_init's + a[:K].T @ b[:K], packed panels; as in gemm.

    It is MR rows by `width` vectors of the panel's 3, a number in the source. a (K, MR) can also be
    a transposed view of MR rows of KC elements.
    """
    columns = width * b.shape[1] // 3
    where = slice(m, m + a.shape[1]), slice(n, n + columns)
    c[where] = a[:K].T @ b[:K, :columns] + (c_init[where] if c_init.size else 0)


def transpose(x, i, j, out, m, n):
    """The MR x MR block of out at m, n = that of x at i, j, transposed; rows are contiguous."""
    out[m : m + MR, n : n + MR] = x[i : i + MR, j : j + MR].T


def copy(x, i, j, out, m, n):
    """The MR x MR block of out at m, n = that of x at i, j; rows are contiguous."""
    out[m : m + MR, n : n + MR] = x[i : i + MR, j : j + MR]


@overload(tile, prefer_literal=True)
def _(a, b, K, c, c_init, m, n, width):
    return lambda a, b, K, c, c_init, m, n, width: tile_vectors(a, b, K, c, c_init, m, n, width)


@overload(transpose)
def _(x, i, j, out, m, n):
    return lambda x, i, j, out, m, n: transpose_vectors(x, i, j, out, m, n)


@overload(copy)
def _(x, i, j, out, m, n):
    return lambda x, i, j, out, m, n: copy_vectors(x, i, j, out, m, n)


@intrinsic(prefer_literal=True)
def tile_vectors(typing_context, a, b, K, c, c_init, m, n, width):
    """The vector instructions of `tile`: a loop over k around MR x width sums in registers."""
    columns = range(width.literal_value)
    step, apart = (1, KC) if a.layout == "F" else (MR, 1)  # of a, from k to k and from row to row

    def generate(context, builder, signature, arguments):
        a, b, c, c_init = (
            Matrix(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 3, 4)
        )
        K, m, n = arguments[2], arguments[5], arguments[6]
        W = c.lanes
        vector = ir.VectorType(c.element, W)
        fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector] * 3),
            f"llvm.fma.v{W}f{8 * c.itemsize}",
        )
        tile = [(i, j) for i in range(MR) for j in columns]
        for pointer in c.pointers(m, n, tile).values():
            c.prefetch(pointer, write=True)
        before, loop = builder.block, builder.append_basic_block("k")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(ir.IntType(64))
        sums = {ij: builder.phi(vector) for ij in tile}
        bk = builder.gep(b.data, [builder.mul(k, integer(3 * W))])
        for j in columns:
            b.prefetch(builder.gep(bk, [integer((3 * PREFETCH_ROWS + j) * W)]), write=False)
        row = [b.load(builder.gep(bk, [integer(j * W)]), W) for j in columns]
        ak = builder.gep(a.data, [builder.mul(k, integer(step))])
        totals = {}
        for i in range(MR):
            x = broadcast(builder, builder.load(builder.gep(ak, [integer(i * apart)])), vector)
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
        return context.get_dummy_value()

    return types.void(a, b, K, c, c_init, m, n, width), generate


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


@jit
def pack(x, panels):
    """x (n, K) -> panels (ceil(n / P), K, P), each P rows of x side by side.

    Where the last panel has fewer rows, the rest of it is left as it is.
    """
    n, K = x.shape
    P = panels.shape[2]
    rows, columns = n // MR * MR, K // MR * MR
    if x.strides[1] == x.itemsize:
        for p in range(0, rows, P):
            for k in range(0, columns, MR):
                for i in range(p, min(p + P, rows), MR):
                    transpose(x, i, k, panels[p // P], k, i - p)
    elif x.strides[0] == x.itemsize:
        for k in range(0, columns, MR):
            for i in range(0, rows, MR):
                copy(x.T, k, i, panels[i // P], k, i % P)
    else:
        rows = 0
    for i in range(n):
        for k in range(columns if i < rows else 0, K):
            panels[i // P, k, i % P] = x[i, k]


@cache
def gemm_for(dtype):
    """gemm, compiled once for all strides.

    Other kernels call it by its address: inlined, it would add seconds to the compilation of each.
    """
    return jit(gemm, signature=gemm_signature(dtype))


def gemm_at(address, like):
    """The gemm at an address (codegen/function_pointers.py), for matrices of the dtype of like."""
    return address


@overload(gemm_at)
def _(address, like):
    at = kernel_at(gemm_signature(as_dtype(like.dtype)))
    return lambda address, like: at(address)


def gemm_signature(dtype):
    real = from_dtype(dtype)
    operand, result = types.Array(real, 2, "A", readonly=True), types.Array(real, 2, "A")
    return types.void(operand, operand, result, operand, real[::1])


def gemm(a, b, c, c_init, scratch):
    """c (M, N) = c_init + a (M, K) @ b (K, N).

    c_init (M, N) is c itself, to accumulate; or it shares no memory with c: a bias in every row (by
    np.broadcast_to), or empty, for zeros. The rows of c and c_init are contiguous. scratch
    (SCRATCH_SIZE,) holds the packed panels. Each thread keeps one: to allocate it in every call
    would cost a tenth of the time.
    """
    M, K = a.shape
    N = b.shape[1]
    W = VECTOR // c.itemsize
    NR = 3 * W
    edge = scratch[: MR * NR].reshape(MR, NR)
    apanels = scratch[MR * NR : MR * (NR + KC)].reshape(1, KC, MR)
    bpanels = scratch[MR * (NR + KC) : MR * (NR + KC) + NC * KC].reshape(NC // NR, KC, NR)
    if K == 0:
        fill(c, c_init)
    for n0 in range(0, N, NC):
        n1 = min(n0 + NC, N)
        for k0 in range(0, K, KC):
            k1 = min(k0 + KC, K)
            block_init = c if k0 else c_init
            pack(b[k0:k1, n0:n1].T, bpanels)
            for m in range(0, M, MR):
                pack(a[m : m + MR, k0:k1], apanels)
                for n in range(n0, n1, NR):
                    bpanel = bpanels[(n - n0) // NR]
                    columns = min(NR, n1 - n)
                    if m + MR <= M and columns == NR:
                        tile(apanels[0], bpanel, k1 - k0, c, block_init, m, n, 3)
                    elif m + MR <= M and columns == 2 * W:
                        tile(apanels[0], bpanel, k1 - k0, c, block_init, m, n, 2)
                    elif m + MR <= M and columns == W:
                        tile(apanels[0], bpanel, k1 - k0, c, block_init, m, n, 1)
                    else:
                        tile(apanels[0], bpanel, k1 - k0, edge, block_init[:0], 0, 0, 3)
                        for i in range(min(MR, M - m)):
                            for j in range(columns):
                                old = (
                                    block_init[m + i, n + j] if block_init.size else c.dtype.type(0)
                                )
                                c[m + i, n + j] = old + edge[i, j]


@jit
def fill(c, c_init):
    """c = c_init, or zeros where that is empty."""
    for i in range(len(c)):
        for j in range(c.shape[1]):
            c[i, j] = c_init[i, j] if c_init.size else 0

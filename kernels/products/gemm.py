"""GEMM, c = c_init + a @ b, in float32 and float64, of matrices of any strides.

Blocked for the caches as in Goto and van de Geijn 2008: a block of b is packed into panels of NR
columns that stay in L2, a few rows of a at a time into panels of MR rows, unless these rows are
contiguous: they are read where they are. The microkernel, in tile.py, keeps MR x NR sums in
registers from the first k to the last.

At the shapes of a training step this is about as fast as NumPy's BLAS, and it leaves Numba's thread
pool the only one: two pools whose threads spin cost a factor of two.
"""

from functools import cache

from numba import from_dtype, types

from npgpt.kernels.codegen.function_pointers import kernel_like
from npgpt.kernels.codegen.jit import inlined, jit
from npgpt.kernels.codegen.vectors import LINE, VECTOR
from npgpt.kernels.products.tile import MR, copy, tile, transpose

KC = 256  # a panel of b, KC x NR, is 48 KiB
NC = 768  # a block of b, KC x NC, is 768 KiB of float32: it stays in an L2 of 1 MiB
A_PANELS = 4  # of a, packed at a time: where columns are contiguous, whole cache lines are read
ROWS_SIZE = MR * (3 * VECTOR // 4 + A_PANELS * KC)  # elements: panels of a, and a tile of c
SCRATCH_SIZE = 220_000  # for a whole product
assert SCRATCH_SIZE >= ROWS_SIZE + NC * KC


@jit
def pack(x, panels):
    """x (n, K) -> panels (ceil(n / P), K, P), each P rows of x side by side.

    Where the last panel has fewer rows, the rest of it is left as it is.
    """
    n, K = x.shape
    P = panels.shape[2]
    rows, columns, line = n // MR * MR, K // MR * MR, LINE // x.itemsize
    if x.strides[1] == x.itemsize:
        for p in range(0, rows, P):
            for k0 in range(0, columns, line):  # of each row a whole line before the next ones
                for i in range(p, min(p + P, rows), MR):
                    for k in range(k0, min(k0 + line, columns), MR):
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


@jit
def pack_panels(b, panels):
    """b (K, N) -> panels, of the shape of new_panels: for each KC rows its columns, NR a panel."""
    for i in range(len(panels)):
        pack(b[i * KC : (i + 1) * KC].T, panels[i])


@inlined
def new_panels(flat, K, N):
    """Panels for a b (K, N), on the first panels_size(K, N) elements of flat."""
    NR = 3 * VECTOR // flat.itemsize
    shape = (K + KC - 1) // KC, (N + NR - 1) // NR, min(K, KC), NR
    return flat[: shape[0] * shape[1] * shape[2] * NR].reshape(shape)


def panels_size(K, N):
    """At least how many elements the panels of a b (K, N) take."""
    widest = 3 * VECTOR // 4
    return -(-K // KC) * min(K, KC) * -(-N // widest) * widest


@cache
def gemm_for(dtype):
    """gemm, compiled once for all strides.

    Other kernels call it by its address: inlined, it would add seconds to the compilation of each.
    """
    return jit(gemm, signature=gemm_signature(dtype))


@cache
def multiply_for(dtype):
    """multiply_panels, compiled once as gemm is."""
    return jit(multiply_panels, signature=multiply_signature(dtype))


def gemm_signature(dtype):
    real = from_dtype(dtype)
    operand, result = types.Array(real, 2, "A", readonly=True), types.Array(real, 2, "A")
    return types.void(operand, operand, result, operand, real[::1])


def multiply_signature(dtype):
    operand, _, result, init, scratch = gemm_signature(dtype).args
    panels = types.Array(operand.dtype, 4, "C", readonly=True)
    return types.void(operand, panels, result, init, scratch)


# An address and an array -> the gemm, or the multiply_panels, for its dtype (function_pointers.py).
gemm_at, multiply_at = kernel_like(gemm_signature), kernel_like(multiply_signature)


def gemm(a, b, c, c_init, scratch):
    """c (M, N) = c_init + a (M, K) @ b (K, N).

    c_init (M, N) is c itself, to accumulate; or it shares no memory with c: a bias in every row (by
    np.broadcast_to), or empty, for zeros. The rows of c and c_init are contiguous. scratch
    (SCRATCH_SIZE,) holds the packed panels. Each thread keeps one: to allocate it in every call
    would cost a tenth of the time.
    """
    gemm_by(multiply, a, b, c, c_init, scratch)


@jit
def gemm_by(multiply, a, b, c, c_init, scratch):
    """gemm by a compiled multiply_panels."""
    K, N = b.shape
    NR = 3 * VECTOR // c.itemsize
    rest = scratch[ROWS_SIZE:]
    bpanels = rest[: NC * KC].reshape(1, NC // NR, KC, NR)
    if K == 0:
        fill(c, c_init)
    for n0 in range(0, N, NC):
        columns = slice(n0, min(n0 + NC, N))
        for k0 in range(0, K, KC):
            k1 = min(k0 + KC, K)
            init = c if k0 else c_init
            pack(b[k0:k1, columns].T, bpanels[0])
            multiply(a[:, k0:k1], bpanels, c[:, columns], init[:, columns], scratch)


def multiply_panels(a, panels, c, c_init, scratch):
    """c (M, N) = c_init + a (M, K) @ b (K, N), of which pack_panels has made the panels.

    They may be those of a b with more rows and columns. c_init is as in gemm, and scratch has
    ROWS_SIZE elements.
    """
    M, K, NR = len(c), a.shape[1], panels.shape[3]
    edge = scratch[: MR * NR].reshape(MR, NR)
    apanels = scratch[MR * NR : MR * (NR + A_PANELS * KC)].reshape(A_PANELS, KC, MR)
    rows_are_contiguous = a.strides[1] == a.itemsize
    for k0 in range(0, K, KC):
        k1 = min(k0 + KC, K)
        init = c if k0 else c_init
        for m in range(0, M, A_PANELS * MR):
            rows = a[m : m + A_PANELS * MR, k0:k1]
            in_place = rows_are_contiguous and len(rows) == A_PANELS * MR
            if not in_place:
                pack(rows, apanels)
            for i in range(0, len(rows), MR):
                if in_place:
                    part = rows[i : i + MR].T
                    multiply_rows(part, panels[k0 // KC], k1 - k0, c, init, m + i, edge)
                else:
                    multiply_rows(apanels[i // MR], panels[k0 // KC], k1 - k0, c, init, m + i, edge)


multiply = jit(multiply_panels)


@jit
def multiply_rows(a, panels, K, c, c_init, m, edge):
    """The rows of c from m on, at most MR, = c_init's + a[:K].T @ those of the panels."""
    M, N, NR = min(MR, len(c) - m), c.shape[1], panels.shape[2]
    W = NR // 3
    for n in range(0, N, NR):
        b = panels[n // NR]
        columns = min(NR, N - n)
        if M == MR and columns == NR:
            tile(a, b, K, c, c_init, m, n, 3)
        elif M == MR and columns == 2 * W:
            tile(a, b, K, c, c_init, m, n, 2)
        elif M == MR and columns == W:
            tile(a, b, K, c, c_init, m, n, 1)
        else:
            tile(a, b, K, edge, c_init[:0], 0, 0, 3)
            for i in range(M):
                for j in range(columns):
                    old = c_init[m + i, n + j] if c_init.size else c.dtype.type(0)
                    c[m + i, n + j] = old + edge[i, j]


@jit
def fill(c, c_init):
    """c = c_init, or zeros where that is empty."""
    for i in range(len(c)):
        for j in range(c.shape[1]):
            c[i, j] = c_init[i, j] if c_init.size else 0

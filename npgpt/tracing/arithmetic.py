"""float64 arithmetic whose results are the same, bit for bit, on every machine.

Additions, products, quotients and roots of single numbers are: IEEE 754 says what they give. Three
things are not. A BLAS adds the terms of a matrix product in whatever order is fast on a CPU; exp,
tanh and log are as good as a machine's library; and so is a power. An `Exact` array is a NumPy
array that does these itself, so the textbook's layers, given such arrays, compute the same numbers
everywhere:

- A matrix product is made of products that are exact in any order of summation. Each row of the
  first matrix and each column of the second is split into slices of few bits, integers times a
  power of two, so that no sum of products of two slices needs more than 53 bits (Ozaki et al.
  2012, Numerical Algorithms 59). The products of slices are then added in a fixed order. It is
  also more accurate than a product in float64.
- Sums add the two halves of an axis to each other until one is left.
- exp, tanh and log are polynomials.

An operation that is not known to be the same everywhere raises an error.
"""

import math

import numpy as np

N_SLICES = 3
CHUNK = 4096  # rows or columns of a product at a time, which bounds the memory for the slices
LOG2_HIGH, LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # high: 32 bits
EXP_TERMS = [1 / math.factorial(n) for n in range(13, -1, -1)]
LOG_TERMS = [2 / n for n in range(25, 0, -2)]


class Exact(np.ndarray):
    """A float64 array with which NumPy computes by the functions of this module."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, Exact) else x for x in inputs]
        into = None if out is None else tuple(x.view(np.ndarray) for x in out)
        key = (ufunc, method)
        if key in OWN:
            result = OWN[key](*plain, **options)
            if into is not None:
                into[0][...] = result
                result = into[0]
        elif method == "at":
            return getattr(ufunc, method)(*plain, **options)
        elif ufunc in SAME_EVERYWHERE and method in ("__call__", "reduce"):
            if into is not None:
                options["out"] = into
            result = getattr(ufunc, method)(*plain, **options)
        else:
            raise TypeError(f"{ufunc.__name__}.{method} is not the same on every machine")
        if isinstance(result, np.ndarray | np.floating) and result.dtype == np.float64:
            return np.asarray(result).view(Exact)
        return result

    def __array_function__(self, function, types, arguments, options):
        if function not in SHAPING:
            raise TypeError(f"numpy.{function.__name__} is not the same on every machine")
        return super().__array_function__(function, types, arguments, options)

    def dot(self, other, out=None):
        raise TypeError("dot is not the same on every machine")


class Number(float):
    """A float whose integer powers are products."""

    def __pow__(self, exponent):
        result = 1.0
        for _ in range(exponent):
            result *= self
        return result


def product(a, b):
    """a (..., M, K) @ b (..., K, N) -> (..., M, N)."""
    M, K, N = a.shape[-2], a.shape[-1], b.shape[-1]
    if M > CHUNK:
        pieces = [product(a[..., i : i + CHUNK, :], b) for i in range(0, M, CHUNK)]
        return np.concatenate(pieces, axis=-2)
    if N > CHUNK:
        pieces = [product(a, b[..., i : i + CHUNK]) for i in range(0, N, CHUNK)]
        return np.concatenate(pieces, axis=-1)
    if K > CHUNK:
        total = product(a[..., :CHUNK], b[..., :CHUNK, :])
        for i in range(CHUNK, K, CHUNK):
            total += product(a[..., i : i + CHUNK], b[..., i : i + CHUNK, :])
        return total
    bits = (53 - (K - 1).bit_length()) // 2
    a_slices, a_exponent = split(a, -1, bits)
    b_slices, b_exponent = split(b, -2, bits)
    total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), M, N))
    for both in reversed(range(N_SLICES)):  # the smallest first
        for i in range(both + 1):
            total += (a_slices[i] @ b_slices[both - i]) * 2.0 ** (-bits * both)
    return np.ldexp(total, a_exponent + b_exponent - 2 * bits)


def split(x, axis, bits):
    """x is the sum over i of slices[i] * 2^(exponent - bits * (i + 1)): integers of `bits` bits.

    The exponent, an array, is that of the largest number along the axis.
    """
    _, exponent = np.frexp(np.abs(x).max(axis, keepdims=True))
    rest, slices = np.ldexp(x, bits - exponent), []
    for _ in range(N_SLICES):
        slices.append(np.rint(rest))
        rest = (rest - slices[-1]) * 2.0**bits
    return slices, exponent


def total(x, axis=None, dtype=None, out=None, keepdims=False, **_):
    """The sum of x along an axis, several or all."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis)
    axes = sorted(a % x.ndim for a in axes)
    moved = np.moveaxis(np.asarray(x, np.float64), axes, range(len(axes)))
    rest = moved.reshape(math.prod(moved.shape[: len(axes)]), *moved.shape[len(axes) :])
    while len(rest) > 1:
        half = (len(rest) + 1) // 2
        folded = rest[:half].copy()
        folded[: len(rest) - half] += rest[half:]
        rest = folded
    result = rest[0] if len(rest) else np.zeros(rest.shape[1:])
    return np.expand_dims(result, tuple(axes)) if keepdims else result


def exp(x, **_):
    """e^x: x = n log(2) + r, and a polynomial of r; 0 where a float64 would be denormal."""
    x = np.asarray(x, np.float64)
    inside = np.clip(np.where(np.isnan(x), 0.0, x), -708.0, 709.0)
    n = np.rint(inside * (1 / math.log(2)))
    r = (inside - n * LOG2_HIGH) - n * LOG2_LOW
    result = np.full(x.shape, EXP_TERMS[0])
    for term in EXP_TERMS[1:]:
        result = result * r + term
    result = result * ((n.astype(np.int64) + 1023) << 52).view(np.float64)
    return np.where(x < -708, 0.0, np.where(x > 709, np.inf, np.where(np.isnan(x), x, result)))


def tanh(x, **_):
    """By exp; its error is some 1e-16, which near 0 is not small beside tanh(x)."""
    x = np.asarray(x, np.float64)
    e = exp(-2 * np.abs(x))
    return np.copysign((1 - e) / (1 + e), x)


def log(x, **_):
    """x = m 2^n with m around 1, and log(m) = 2 artanh((m - 1) / (m + 1)) by its series."""
    m, n = np.frexp(np.asarray(x, np.float64))
    small = m < math.sqrt(0.5)
    m, n = np.where(small, 2 * m, m), np.where(small, n - 1, n)
    s = (m - 1) / (m + 1)
    result = np.full(s.shape, LOG_TERMS[0])
    for term in LOG_TERMS[1:]:
        result = result * (s * s) + term
    return n * LOG2_HIGH + (n * LOG2_LOW + s * result)


def power(x, exponent, **_):
    """1 / sqrt(x): the one power that the textbook takes."""
    if np.ndim(exponent) or exponent != -0.5:
        raise TypeError(f"the power {exponent} is not the same on every machine")
    return 1 / np.sqrt(x)


OWN = {
    (np.matmul, "__call__"): lambda a, b, **_: product(a, b),
    (np.add, "reduce"): total,
    (np.exp, "__call__"): exp,
    (np.tanh, "__call__"): tanh,
    (np.log, "__call__"): log,
    (np.power, "__call__"): power,
}
SAME_EVERYWHERE = {
    np.add, np.subtract, np.multiply, np.true_divide, np.negative, np.absolute, np.square,
    np.sqrt, np.maximum, np.minimum, np.less, np.less_equal, np.greater, np.greater_equal,
    np.equal, np.not_equal, np.isfinite, np.isnan,
}  # fmt: skip
SHAPING = {
    np.zeros_like, np.empty_like, np.concatenate, np.stack, np.split, np.where, np.shape, np.ndim,
    np.broadcast_to, np.count_nonzero, np.array_equal, np.copyto, np.moveaxis,
}  # fmt: skip


def exact(x):
    """x in float64, as an Exact array."""
    return np.asarray(x, np.float64).view(Exact)

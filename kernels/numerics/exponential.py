"""What a softmax takes: exp, vectorised in float32, and the maximum of a row."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from npgpt.kernels.codegen.jit import jit

LOG2E = np.float32(1.44269504)
LN2 = np.float32(0.69314718)
LOWEST, HIGHEST = np.float32(-87.3), np.float32(88.3)  # of x, where n is within -126 and 127
COEFFICIENTS = [np.float32(1 / np.prod(np.arange(1.0, k + 1))) for k in range(8)]  # 1/k!
T2, T3, T4, T5, T6, T7 = COEFFICIENTS[2:]
HALF, ONE = np.float32(0.5), np.float32(1)


def exp(x):
    """e^x; in float32 within 4e-7 relatively, and not below e^-87.3 or above e^88.3."""
    return np.exp(x)


@overload(exp, inline="always")
def exp_of(x):
    return exp_float32 if x == types.float32 else lambda x: np.exp(x)


def exp_float32(x):
    # x = n ln 2 + r with |r| <= ln 2 / 2, and e^x = 2^n e^r; e^r by its series
    y = min(max(x, LOWEST), HIGHEST)
    n = np.floor(y * LOG2E + HALF)
    r = y - n * LN2
    s = ONE + r * (ONE + r * (T2 + r * (T3 + r * (T4 + r * (T5 + r * (T6 + r * T7))))))
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))  # the bits of 2^n
    return s * power.view(np.float32)


def maximum(x, y):
    """The larger of two numbers; of a NaN and a number it may be either."""
    return max(x, y)


@overload(maximum)
def _(x, y):
    return lambda x, y: maxnum(x, y)


@intrinsic
def maxnum(typing_context, x, y):
    """LLVM's maxnum: a reduction by comparisons would keep the order of elements, and be scalar."""

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        name = f"llvm.maxnum.f{x.bitwidth}"
        function = ir.FunctionType(kind, [kind, kind])
        function = cgutils.get_or_insert_function(builder.module, function, name)
        return builder.call(function, arguments, fastmath=("nnan", "nsz"))

    return x(x, x), generate


@jit
def row_max(row):
    """The maximum of row (N,); which one it is when there is a NaN is not specified."""
    highest = row[0]
    for i in range(row.size):
        highest = maximum(highest, row[i])
    return highest

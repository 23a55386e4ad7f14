"""The product that other kernels multiply matrices with, in the precision that counts now."""

import numpy as np

from npgpt.kernels.products import amx
from npgpt.kernels.products.gemm import gemm_for
from npgpt.kernels.products.gemm_bf16 import gemm_bf16_for
from npgpt.precision import current_precision

PARTS = {"fp32": 0, "int8": 0, "bf16": 1, "bf16x3": 2}


def current_gemm(dtype):
    """A compiled gemm for matrices of this dtype; float64 is always multiplied as it is."""
    parts = bf16_parts(dtype)
    return gemm_bf16_for(split=parts == 2) if parts else gemm_for(dtype)


def bf16_parts(dtype):
    """How many bf16 stand for an element of a factor; 0: it is multiplied as it is.

    Without tiles bf16x3 is float32, which is more exact, and faster then than three products.
    """
    parts = PARTS[current_precision()] if dtype == np.float32 else 0
    return 0 if parts == 2 and not amx.granted() else parts

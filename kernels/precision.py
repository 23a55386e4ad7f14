"""The product that other kernels multiply matrices with, in the precision that counts now."""

import numpy as np

from npgpt.kernels.gemm import gemm_for
from npgpt.precision import current_precision

PARTS = {"fp32": 0, "bf16": 1, "bf16x3": 2}


def current_gemm(dtype):
    """A compiled gemm for matrices of this dtype; float64 is always multiplied as it is."""
    name = current_precision()
    if name == "fp32" or dtype != np.float32:
        return gemm_for(dtype)
    from npgpt.kernels.gemm_bf16 import gemm_bf16_for

    return gemm_bf16_for(split=name == "bf16x3")


def bf16_parts(dtype):
    """How many bf16 stand for an element of a factor; 0: it is multiplied as it is."""
    return PARTS[current_precision()] if dtype == np.float32 else 0

"""The product that other kernels multiply matrices with, in the precision that counts now."""

import numpy as np

from npgpt.kernels.gemm import gemm_for
from npgpt.precision import current_precision


def current_gemm(dtype):
    """A compiled gemm for matrices of this dtype; float64 is always multiplied as it is."""
    name = current_precision()
    if name == "fp32" or dtype != np.float32:
        return gemm_for(dtype)
    from npgpt.kernels.gemm_bf16 import gemm_bf16_for

    return gemm_bf16_for(split=name == "bf16x3")

"""Which matrix product the kernels use in the current precision: the one place that asks for it."""

import numpy as np

from npgpt.core.precision import current_bf16_terms
from npgpt.kernels.products import amx, avx512_bf16


def current_n_terms(dtype):
    """How many bf16 terms an operand's elements are made of; 0: they are multiplied as they are.

    float64 always is. Without AMX two terms are float32, which is more exact, and faster then than
    three products.
    """
    n_terms = current_bf16_terms() if dtype == np.float32 else 0
    return 0 if n_terms == 2 and not amx.available() else n_terms


def has_bf16_hardware():
    """Whether this machine can multiply in bf16: on AMX tiles, or with AVX-512's instructions."""
    return amx.available() or avx512_bf16.available()

"""Which matrix product the kernels use in the current precision: the one place that asks for it."""

import numpy as np

from npgpt.kernels.products import amx
from npgpt.precision import current_precision

N_TERMS = {"fp32": 0, "int8": 0, "bf16": 1, "bf16x3": 2}


def current_n_terms(dtype):
    """How many bf16 terms an operand's elements are made of; 0: they are multiplied as they are.

    float64 always is. Without AMX two terms are float32, which is more exact, and faster then than
    three products.
    """
    n_terms = N_TERMS[current_precision()] if dtype == np.float32 else 0
    return 0 if n_terms == 2 and not amx.available() else n_terms

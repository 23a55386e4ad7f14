"""The fast twins: the layers of npgpt.layers under the same names, compiled by Numba.

Same functions, arguments and caches. A layer that has no twin here is its textbook's.
"""

from npgpt.kernels.layernorm import layernorm_backward, layernorm_forward
from npgpt.layers import (
    adamw_update,
    attention_backward,
    attention_forward,
    crossentropy_backward,
    crossentropy_forward,
    encoder_backward,
    encoder_forward,
    gelu_backward,
    gelu_forward,
    matmul_backward,
    matmul_forward,
)

__all__ = [
    "adamw_update",
    "attention_backward",
    "attention_forward",
    "crossentropy_backward",
    "crossentropy_forward",
    "encoder_backward",
    "encoder_forward",
    "gelu_backward",
    "gelu_forward",
    "layernorm_backward",
    "layernorm_forward",
    "matmul_backward",
    "matmul_forward",
]

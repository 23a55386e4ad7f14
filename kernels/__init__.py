"""The fast twins: the layers of npgpt.layers under the same names, compiled by Numba.

Same functions, arguments and caches, but for two: attention's keeps less, and crossentropy's is
used up by its backward pass. Tokens and targets have to be within the vocabulary: nothing checks.
"""

from npgpt.kernels.adamw import adamw_update, gradient_norm
from npgpt.kernels.attention import attention_backward, attention_forward, attention_step
from npgpt.kernels.crossentropy import crossentropy_backward, crossentropy_forward
from npgpt.kernels.dropout import dropout_backward, dropout_forward
from npgpt.kernels.encoder import encoder_backward, encoder_forward
from npgpt.kernels.gelu import gelu_backward, gelu_forward
from npgpt.kernels.layernorm import layernorm_backward, layernorm_forward
from npgpt.kernels.matmul import matmul_backward, matmul_forward
from npgpt.kernels.muon import muon_update
from npgpt.kernels.residual import residual_add

__all__ = [
    "adamw_update",
    "attention_backward",
    "attention_forward",
    "attention_step",
    "crossentropy_backward",
    "crossentropy_forward",
    "dropout_backward",
    "dropout_forward",
    "encoder_backward",
    "encoder_forward",
    "gelu_backward",
    "gelu_forward",
    "gradient_norm",
    "layernorm_backward",
    "layernorm_forward",
    "matmul_backward",
    "matmul_forward",
    "muon_update",
    "residual_add",
]

"""The textbook: every layer of GPT-2 in NumPy alone, forward and backward side by side.

A layer is two functions: `out, cache = f_forward(*arguments)` and `gradients = f_backward(dout,
cache)`, the gradients in the order of the arguments. They work in the dtype of what they get.
Attention has a third one, attention_step, which goes on from keys and values that were kept.
Read them in the order of a batch: encoder, layernorm, matmul, attention, residual, gelu,
crossentropy, adamw; then dropout and muon.
"""

from npgpt.layers.adamw import adamw_update, gradient_norm
from npgpt.layers.attention import attention_backward, attention_forward, attention_step
from npgpt.layers.crossentropy import crossentropy_backward, crossentropy_forward
from npgpt.layers.dropout import dropout_backward, dropout_forward
from npgpt.layers.encoder import encoder_backward, encoder_forward
from npgpt.layers.gelu import gelu_backward, gelu_forward
from npgpt.layers.layernorm import layernorm_backward, layernorm_forward
from npgpt.layers.matmul import matmul_backward, matmul_forward
from npgpt.layers.muon import muon_update
from npgpt.layers.residual import residual_add

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

"""Print the precisions besides fp32 that this machine has hardware for."""

from npgpt.core.precision import PRECISIONS
from npgpt.kernels.products.precision import has_bf16_hardware

print(*(name for name in PRECISIONS if name != "fp32" and has_bf16_hardware()))

"""Print the coarsest precision that this machine has hardware for."""

from npgpt.kernels.products.precision import has_bf16_hardware

print("bf16" if has_bf16_hardware() else "fp32")

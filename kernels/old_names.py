"""The modules under the names that they had, until npgpt/ imports them from where they are."""

import sys

from npgpt.kernels.decode import blocks
from npgpt.kernels.memory import buffers
from npgpt.kernels.numerics import bfloat16, int8
from npgpt.kernels.products import amx, avx512_bf16

old = {
    "amx": amx,
    "buffers": buffers,
    "dots_bf16": avx512_bf16,
    "halves": bfloat16,
    "int8": int8,
    "step": blocks,
}
for name, module in old.items():
    sys.modules[f"npgpt.kernels.{name}"] = module
    setattr(sys.modules["npgpt.kernels"], name, module)

"""The modules and functions under the names that they had, until npgpt/ uses the new ones."""

import sys

from npgpt.kernels import matmul
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

matmul.FEW = matmul.GEMV_MAX_ROWS
amx.granted = lambda: amx.available()
avx512_bf16.granted = lambda: avx512_bf16.available()
bfloat16.to_halves = bfloat16.to_bf16
blocks.blocks_of, blocks.blocks_step = blocks.decode_params, blocks.decode_blocks

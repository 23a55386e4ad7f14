"""The tile instructions of Intel's AMX, as functions that a kernel can call.

A core has eight tiles, registers of 16 rows of 64 bytes: 16 x 16 float32, or 16 x 32 bf16.
`multiply` adds the products of 16 pairs of bf16 to each of 256 sums: 8,192 multiplications in one
instruction. A tile is named by its number, a compile-time constant. The operating system denies a
process their use until it asks for it (`available`), and a thread has to configure them first
(`configure`).

After the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

import ctypes
import platform
import sys
from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.vectors import cpu_features

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18  # Linux's, for x86-64

# Palette 1; for each of the tiles 64 bytes a row, 16 rows.
TILE_CONFIG = np.zeros(64, np.uint8)
TILE_CONFIG[0] = 1
TILE_CONFIG[16:32].view(np.uint16)[:] = 64
TILE_CONFIG[48:56] = 16

BYTE, INT8, INT64 = ir.IntType(8).as_pointer(), ir.IntType(8), ir.IntType(64)


@cache
def available():
    """Whether this CPU has tiles for bf16 and the system lets this process use them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if not {"amx-tile", "amx-bf16", "avx512bf16"} <= cpu_features():  # the last is for packing
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


def emit(builder, name, *values):
    """Call one of LLVM's intrinsics for x86, which stands for a single instruction."""
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), values)


def pointer_to(context, builder, array_type, array, offset):
    """A pointer to the element at an offset from an array's first, whatever its shape."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [offset]), BYTE)


@intrinsic
def configure(typing_context, config):
    """Give this thread's tiles their shapes, TILE_CONFIG, and zero them."""

    def generate(context, builder, signature, arguments):
        pointer = pointer_to(context, builder, signature.args[0], arguments[0], INT64(0))
        emit(builder, "ldtilecfg", pointer)
        return context.get_dummy_value()

    return types.void(config), generate


@intrinsic
def release(typing_context):
    """Release the tiles: the system need not save them any more at a context switch."""

    def generate(context, builder, signature, arguments):
        emit(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def zero(typing_context, tile):
    """tile = 0"""

    def generate(context, builder, signature, arguments):
        emit(builder, "tilezero", INT8(tile.literal_value))
        return context.get_dummy_value()

    return types.void(tile), generate


def tile_mover(instruction):
    """An intrinsic that loads or stores a tile: 16 rows of x from an offset on, `stride` apart."""

    @intrinsic(prefer_literal=True)
    def move(typing_context, tile, x, offset, stride):
        def generate(context, builder, signature, arguments):
            _, array, offset, stride = arguments
            pointer = pointer_to(context, builder, signature.args[1], array, offset)
            stride = builder.mul(stride, INT64(x.dtype.bitwidth // 8))
            emit(builder, instruction, INT8(tile.literal_value), pointer, stride)
            return context.get_dummy_value()

        return types.void(tile, x, types.intp, types.intp), generate

    return move


load, store = tile_mover("tileloadd64"), tile_mover("tilestored64")


@intrinsic(prefer_literal=True)
def multiply(typing_context, c, a, b):
    """c[i, j] += the sum over k of a[i, 2k] * b[k, 2j] + a[i, 2k + 1] * b[k, 2j + 1]"""

    def generate(context, builder, signature, arguments):
        emit(builder, "tdpbf16ps", *(INT8(tile.literal_value) for tile in (c, a, b)))
        return context.get_dummy_value()

    return types.void(c, a, b), generate

"""The tile instructions of Intel's AMX, as functions that a kernel can call.

A core has eight tiles, registers of 16 rows of 64 bytes: 16 x 16 float32, or 16 x 32 bf16, which
are the upper halves of float32. `multiply` adds the products of 16 pairs of bf16 to each of 256
sums: 8,192 multiplications in one instruction. Tiles are named by a number, which has to be a
constant. The system keeps a process from them until it asks (`granted`), and a thread has to say
their shape before it uses them (`begin`).

After the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

import ctypes
import platform
import sys
from functools import cache

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npgpt.kernels.codegen.vectors import Matrix

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18  # Linux's, for x86-64

# Palette 1; for each of the tiles 64 bytes a row, 16 rows.
SHAPES = np.zeros(64, np.uint8)
SHAPES[0] = 1
SHAPES[16:32].view(np.uint16)[:] = 64
SHAPES[48:56] = 16

BYTE, INT8, INT64 = ir.IntType(8).as_pointer(), ir.IntType(8), ir.IntType(64)


@cache
def granted():
    """Whether this CPU has tiles for bf16 and the system lets this process use them."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    features = llvm.get_host_cpu_features()  # the last is what the factors are packed by
    if not all(features.get(name, False) for name in ("amx-tile", "amx-bf16", "avx512bf16")):
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


def emit(builder, name, *values):
    """Call one of LLVM's functions for x86, which stands for a single instruction."""
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), values)


def address(context, builder, array_type, array, at):
    """Of the element `at` of an array, whatever its shape, counted from its first."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [at]), BYTE)


@intrinsic
def begin(typing_context, shapes):
    """Give the tiles of this thread their SHAPES; they are zero then."""

    def generate(context, builder, signature, arguments):
        pointer = address(context, builder, signature.args[0], arguments[0], INT64(0))
        emit(builder, "ldtilecfg", pointer)
        return context.get_dummy_value()

    return types.void(shapes), generate


@intrinsic
def end(typing_context):
    """Give the tiles back: the system need not save them any more when it changes threads."""

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


def mover(instruction):
    """An intrinsic that moves a tile: 16 rows of x, `stride` elements apart, from element `at`."""

    @intrinsic(prefer_literal=True)
    def move(typing_context, tile, x, at, stride):
        def generate(context, builder, signature, arguments):
            _, array, at, stride = arguments
            pointer = address(context, builder, signature.args[1], array, at)
            stride = builder.mul(stride, INT64(x.dtype.bitwidth // 8))
            emit(builder, instruction, INT8(tile.literal_value), pointer, stride)
            return context.get_dummy_value()

        return types.void(tile, x, types.intp, types.intp), generate

    return move


load, store = mover("tileloadd64"), mover("tilestored64")


@intrinsic
def fetch_to_write(typing_context, x, i, j):
    """Ask for the cache line of x[i, j], whose rows are dense, before it is written."""

    def generate(context, builder, signature, arguments):
        array, i, j = arguments
        x = Matrix(context, builder, signature.args[0], array)
        x.fetch(x.at(i, j), write=True)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def multiply(typing_context, c, a, b):
    """c[i, j] += the sum over k of a[i, 2k] * b[k, 2j] + a[i, 2k + 1] * b[k, 2j + 1]"""

    def generate(context, builder, signature, arguments):
        emit(builder, "tdpbf16ps", *(INT8(tile.literal_value) for tile in (c, a, b)))
        return context.get_dummy_value()

    return types.void(c, a, b), generate

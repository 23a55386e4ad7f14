"""Denormal numbers are zeros while a kernel computes: with them it can take forty times as long.

Each thread has a register of its own that says so: MXCSR on x86 (Intel 64 and IA-32 Architectures
Software Developer's Manual, volume 1, 10.2.3), FPCR on ARM (Arm Architecture Reference Manual,
D24.2.47). So each part that a thread takes begins with flush_denormals and ends with
restore_denormals: what computes elsewhere in the process is left as it was.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

X86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
ARM = platform.machine().lower() in ("aarch64", "arm64")
FLUSH = 0x8040 if X86 else 1 << 24  # flush to zero and denormals are zero; FZ, which is both


def flush_denormals():
    """Take denormals for zeros in this thread -> the register's value before."""
    return 0


def restore_denormals(before):
    """Undo what flush_denormals, which returned `before`, has done."""


@overload(flush_denormals)
def _():
    def flush():
        before = read_register()
        write_register(before | FLUSH)
        return before

    return flush


@overload(restore_denormals)
def _(before):
    return lambda before: write_register(before)


@intrinsic
def read_register(typing_context):
    def generate(context, builder, signature, arguments):
        if X86:
            place = cgutils.alloca_once(builder, ir.IntType(32))
            call_x86(builder, "llvm.x86.sse.stmxcsr", place)
            return builder.zext(builder.load(place), ir.IntType(64))
        if ARM:
            kind = ir.FunctionType(ir.IntType(64), [])
            return builder.asm(kind, "mrs $0, fpcr", "=r", [], side_effect=True)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(), generate


@intrinsic
def write_register(typing_context, value):
    def generate(context, builder, signature, arguments):
        (value,) = arguments
        if X86:
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(builder.trunc(value, ir.IntType(32)), place)
            call_x86(builder, "llvm.x86.sse.ldmxcsr", place)
        elif ARM:
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
            builder.asm(kind, "msr fpcr, $0", "r", [value], side_effect=True)
        return context.get_dummy_value()

    return types.none(types.int64), generate


def call_x86(builder, name, place):
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [builder.bitcast(place, byte)])

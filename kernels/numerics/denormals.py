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
            call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), address(builder, place))
            return builder.zext(builder.load(place), ir.IntType(64))
        if ARM:
            return call(builder, "llvm.aarch64.get.fpcr", ir.IntType(64))
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(), generate


@intrinsic
def write_register(typing_context, value):
    def generate(context, builder, signature, arguments):
        (value,) = arguments
        if X86:
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(builder.trunc(value, ir.IntType(32)), place)
            call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), address(builder, place))
        elif ARM:
            call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), value)
        return context.get_dummy_value()

    return types.none(types.int64), generate


def call(builder, name, result, *arguments):
    """Call one of LLVM's intrinsics. Assembly would need its parser, which Numba does not start."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def address(builder, place):
    return builder.bitcast(place, ir.IntType(8).as_pointer())

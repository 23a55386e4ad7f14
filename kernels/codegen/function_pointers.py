"""How a compiled kernel is given another one to call: by the number of its address.

Numba can pass the kernel itself, but takes longer for that than for a product of small matrices.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


@cache
def address_of(kernel):
    """Of a kernel that is compiled for one signature, or the kernel itself where nothing is."""
    if not hasattr(kernel, "overloads"):  # NUMBA_DISABLE_JIT
        return kernel
    (compiled,) = kernel.overloads.values()
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    assert address, "a kernel that is not there"
    return address


def kernel_at(signature):
    """A function for compiled kernels: address -> the kernel there, of this signature."""
    kind = types.FunctionType(signature)

    def at(address):
        return address

    @overload(at)
    def _(address):
        return lambda address: cast(address)

    @intrinsic
    def cast(typing_context, address):
        def generate(context, builder, signature, arguments):
            kernel = cgutils.create_struct_proxy(kind)(context, builder)
            kernel.jit_addr = builder.inttoptr(arguments[0], kernel.jit_addr.type)
            kernel.c_addr = kernel.py_addr = ir.Constant(kernel.jit_addr.type, None)  # not used
            return kernel._getvalue()

        return kind(types.intp), generate

    return at

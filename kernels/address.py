"""How a compiled kernel is given another one to call: by the number of its address.

Numba can pass the kernel itself, but takes 90 microseconds for that, as long as the product of two
small matrices.
"""

from functools import cache

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


@cache
def address_of(kernel):
    """Of a kernel that is compiled for one signature, or the kernel itself where nothing is."""
    if not hasattr(kernel, "overloads"):  # NUMBA_DISABLE_JIT
        return kernel
    (compiled,) = kernel.overloads.values()
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


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
            pointer = builder.inttoptr(arguments[0], kernel.jit_addr.type)
            kernel.jit_addr = kernel.c_addr = kernel.py_addr = pointer
            return kernel._getvalue()

        return kind(types.intp), generate

    return at

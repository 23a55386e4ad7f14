"""Function pointers: a compiled kernel is given the address of another one to call.

Numba can pass the kernel itself, but takes longer for that than for a product of small matrices.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.numpy_support import as_dtype


@cache
def address_of(kernel):
    """The address of a kernel compiled for one signature; the kernel itself if it is not."""
    if not hasattr(kernel, "overloads"):  # NUMBA_DISABLE_JIT
        return kernel
    (compiled,) = kernel.overloads.values()
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    assert address, "the kernel has no address"
    return address


def kernel_at(signature):
    """A function for compiled kernels: address -> the kernel at that address."""
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


def kernel_like(signature_of):
    """As kernel_at, of what is compiled for each dtype: (address, array) -> the kernel for its."""

    def at(address, like):
        return address

    @overload(at)
    def _(address, like):
        kernel = kernel_at(signature_of(as_dtype(like.dtype)))
        return lambda address, like: kernel(address)

    return at

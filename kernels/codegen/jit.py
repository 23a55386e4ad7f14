"""How every kernel is compiled: one set of flags, a cache on disk, a message while it happens."""

import sys
import warnings
from contextlib import suppress
from functools import partial

import numba
from numba.core import event
from numba.core.errors import NumbaExperimentalFeatureWarning

from npgpt.kernels.codegen.disk import DiskCache
from npgpt.kernels.codegen.own_copies import Compiler

# fastmath without nnan and ninf, which would make isnan false and hide a run that has diverged;
# error_model="numpy", or the check for a division by zero keeps a loop from being vectorised.
SETTINGS = {
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "nogil": True,
}
# Of what Numba can spread over threads, only the loops that say so: compiles faster.
PRANGE_ALONE = {
    "prange": True, "comprehension": False, "reduction": False, "inplace_binop": False,
    "setitem": False, "numpy": False, "stencil": False, "fusion": False,
}  # fmt: skip

# Makes a function part of the kernels that call it: so it may return a slice in any of them.
inlined = numba.njit(inline="always")
kernels: list = []


def jit(kernel=None, *, parallel=False, signature=None, makes_arrays=False):
    """Compile a kernel at its first call, and keep the result on disk where there is a place.

    With parallel, its pranges are spread over the threads. Given a signature, compile it now, for
    that alone: other arguments are converted to it.

    Only with makes_arrays may it make arrays, or return one, or call a kernel that returns one:
    then it counts the references to its arrays and all their slices. That is an atomic operation
    each, and for small matrices they take as long as the multiplication.
    """
    if kernel is None:
        return partial(jit, parallel=parallel, signature=signature, makes_arrays=makes_arrays)
    settings = {**SETTINGS, "parallel": parallel and PRANGE_ALONE, "_nrt": makes_arrays}
    settings["pipeline_class"] = Compiler
    compiled = numba.njit(**settings)(kernel)
    if not numba.config.DISABLE_JIT:
        with suppress(RuntimeError):  # neither the package's folder nor the user's can be written
            compiled._cache = DiskCache(kernel)
    kernels.append(compiled)
    if signature is not None and not numba.config.DISABLE_JIT:
        with warnings.catch_warnings():  # about kernels that call another one by its address
            warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
            compiled.compile(signature)
        compiled.disable_compile()
    return compiled


def missing_on_disk(kernel):
    """Whether the disk could hold what is compiled of a kernel, and holds nothing yet.

    It may also be a kernel's function, which has not been given to jit.
    """
    if numba.config.DISABLE_JIT:
        return False
    try:
        return DiskCache(getattr(kernel, "py_func", kernel)).is_empty()
    except RuntimeError:  # there is no place for it
        return False


class Announcement(event.Listener):
    """Says on stderr that kernels are being compiled: on a terminal which, elsewhere once."""

    def __init__(self):
        self.count = self.depth = 0

    def on_start(self, event):
        if is_ours(event) and sys.stderr:
            self.count += 1
            self.depth += 1
            name = event.data["dispatcher"].py_func.__name__
            if sys.stderr.isatty():
                text = f"compiling kernels for this machine: {self.count}, {name}"
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            elif self.count == 1:
                print("compiling kernels for this machine ...", file=sys.stderr, flush=True)

    def on_end(self, event):
        cache = getattr(event.data["dispatcher"], "_cache", None)
        if event._exc_details is not None and isinstance(cache, DiskCache):
            cache.unlock()  # by Ctrl-C, for example: nothing will be saved
        if is_ours(event) and sys.stderr:
            self.depth -= 1
            if not self.depth and sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr, flush=True)


def is_ours(event):
    return any(event.data["dispatcher"] is kernel for kernel in kernels)


event.register("numba:compile", Announcement())

"""The first training step on a machine: a second process compiles half of its kernels.

Kernels take some twenty seconds of a core to compile, and a Python process compiles on one core
only. So while this process begins with the kernels that a step needs first, another one begins with
those that it needs last. What each has compiled, the other finds on disk.
"""

import atexit
import subprocess
import sys

import numpy as np

from npgpt import kernels
from npgpt.core.precision import PRECISIONS, at_least_bf16x3, use_bf16_terms
from npgpt.core.threads import get_threads
from npgpt.kernels.adamw import update_blocks
from npgpt.kernels.codegen.jit import missing_on_disk
from npgpt.kernels.heads.bf16 import backward_heads
from npgpt.kernels.products import amx
from npgpt.kernels.products.precision import current_n_terms, has_bf16_hardware
from npgpt.kernels.products.shared_pack_bf16 import kernels_for

_started = False


def start(dtype, precision):
    """Start the second process, once, if there are kernels to compile and a core to do it on."""
    global _started
    kernel = backward_heads if in_bf16(dtype, precision) else update_blocks
    if _started or get_threads() == 1 or not missing_on_disk(kernel):
        return
    if getattr(sys, "frozen", False) or not sys.executable:  # the executable is not Python
        return
    _started = True
    path = f"import sys; sys.path[:] = {sys.path!r}"  # and not the current folder
    work = f"compile_from_the_last({np.dtype(dtype).name!r}, {precision!r})"
    code = f"{path}; from {__name__} import compile_from_the_last; {work}"
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    quiet["creationflags"] = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows'
    try:
        process = subprocess.Popen([sys.executable, "-c", code], **quiet)
    except OSError:  # this process compiles all of them
        return
    atexit.register(end, process)


def in_bf16(dtype, precision):
    """Whether the products of this dtype and precision are in bf16 on this machine."""
    with use_bf16_terms(PRECISIONS[precision].n_terms):
        return current_n_terms(np.dtype(dtype)) > 0 and has_bf16_hardware()


def end(process):
    """End a process that is still at work."""
    process.kill()
    process.wait()


def compile_from_the_last(dtype, precision):
    """Compile the kernels of a training step, from the update to the first layernorm."""
    B, T, C, NH, V = 1, 256, 64, 2, 64  # large enough for the kernels of several threads

    def zeros(*shape):
        return np.zeros(shape, dtype)

    tokens = np.zeros((B, T), np.int64)
    x, qkv, fch = zeros(B, T, C), zeros(B, T, 3 * C), zeros(B, T, 4 * C)
    w, b, wte, mean = zeros(C, C), zeros(C), zeros(V, C), zeros(B, T, 1)
    flat = zeros(V)
    with use_bf16_terms(PRECISIONS[precision].n_terms):
        kernels.gradient_norm(flat)
        kernels.adamw_update(flat, flat, flat, flat, 1, 0.0, 0.9, 0.999, 1e-8, 0.0)
        kernels.encoder_backward(x, (tokens, wte, x[0]), (wte, x[0]), True)
        kernels.attention_backward(x, (qkv, zeros(B, 2 * NH, T), x))
        kernels.layernorm_backward(x, (x, b, mean, mean), (b, b), False)
        kernels.gelu_backward(fch, fch)
        kernels.matmul_backward(x, (x, w, b), (w, b), False)
        if in_bf16(dtype, precision):
            kernels_for(amx.available())  # of products with many rows
        with at_least_bf16x3():  # as a block has its queries, keys and values
            kernels.matmul_forward(x, w, b)
        kernels.crossentropy_forward(x, wte, tokens)
        kernels.gelu_forward(fch)
        kernels.residual_add(x, x)
        kernels.attention_forward(qkv, NH)
        kernels.layernorm_forward(x, b, b)

"""The one set of settings that every kernel is compiled with."""

import numba

# fastmath without nnan and ninf, which would make isnan false and hide a run that has diverged;
# error_model="numpy", or the check for a division by zero keeps a loop from being vectorised.
# Not parallel: Numba's threads and those of BLAS spin against each other, and a training step takes
# up to three times as long.
SETTINGS = {
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "nogil": True,
}


def jit(kernel):
    """Compile a kernel at its first call, and keep the result on disk where there is a place."""
    try:
        return numba.njit(cache=True, **SETTINGS)(kernel)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(**SETTINGS)(kernel)

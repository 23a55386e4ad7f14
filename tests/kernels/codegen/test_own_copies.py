"""The first process, which compiles the kernels, computes the same bits as all later ones."""

import os
import subprocess
import sys

import pytest

STEPS = """
import hashlib
import numpy as np
import npgpt
rng = np.random.default_rng(0)
model = npgpt.GPT2(npgpt.GPT2Config(64, 257, 2, 4, 64), seed=1)
x, y = rng.integers(0, 257, (2, 4, 64))
for _ in range(3):
    model.forward_backward(x, y)
    model.update(1e-3, clip=1.0)
text = model.generate(x[:, :9], 9, temperature=0)
print(hashlib.sha256(model.params.flat.tobytes() + text.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_the_process_that_compiles_has_the_bits_of_the_next_one(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", STEPS]
    first, second = (
        subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert "compiling kernels" in first.stderr and "compiling kernels" not in second.stderr
    assert first.stdout == second.stdout

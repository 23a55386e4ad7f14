"""The first process, which compiles the kernels, computes the same bits as all later ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).with_name("three_steps.py")


@pytest.mark.slow
def test_the_process_that_compiles_has_the_bits_of_the_next_one(tmp_path):
    command, env = [sys.executable, str(STEPS)], {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert "compiling kernels" in first.stderr and "compiling kernels" not in second.stderr
    assert first.stdout == second.stdout

"""What kernels take of the CPU."""

import llvmlite.binding as llvm
import numba

from npgpt.kernels.codegen.vectors import AVX512, VECTOR, cpu_features


def test_the_features_are_those_that_numba_compiles_for(monkeypatch):
    host = {name for name, has in llvm.get_host_cpu_features().items() if has}
    assert cpu_features() == host
    assert AVX512 == ("avx512f" in host) and VECTOR == (64 if AVX512 else 32)
    monkeypatch.setattr(numba.config, "CPU_FEATURES", "+avx2,+avx512f,+fma,-avx512f")
    assert cpu_features() == {"avx2", "fma"}  # of two mentions the last one counts

"""The estimate of memory against the real peak of a process."""

import subprocess
import sys

import pytest

import npgpt
from npgpt.model import memory
from npgpt.model.passes import RECOMPUTE

STEP = """
import resource, sys
import numpy as np
import npgpt
config = npgpt.GPT2Config(block_size=512, vocab_size=20000, n_layer=4, n_head=8, n_embd=512)
B, T = int(sys.argv[1]), int(sys.argv[2])
recompute = {"False": False, "True": True, "blocks": "blocks"}[sys.argv[3]]
dropout = float(sys.argv[4])
model = npgpt.GPT2(config, recompute=recompute)
tokens, targets = np.random.default_rng(0).integers(0, config.vocab_size, (2, B, T))
model.forward_backward(tokens[:1, :8], targets[:1, :8], dropout=dropout)
model.update(1e-4, clip=1.0)  # now there are moments
model.forward_backward(tokens, targets, dropout=dropout)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
print(npgpt.estimate(config, B, T, recompute).total)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("B", "T", "dropout", "recompute"),
    [(1, 64, 0.0, False), *((4, 512, 0.1, recompute) for recompute in RECOMPUTE)],
)
def test_it_is_within_a_tenth_of_the_real_peak(B, T, dropout, recompute):
    # The memory of a new process counts from its parent's peak, so it is started by a small one.
    starter = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    arguments = [sys.executable, "-c", STEP, *map(str, (B, T, recompute, dropout))]
    done = subprocess.run(
        [sys.executable, "-c", starter, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak, expected = map(int, done.stdout.split())
    assert expected == pytest.approx(peak, rel=0.1)


def test_it_names_its_parts_and_refuses_what_cannot_be():
    one = npgpt.estimate(npgpt.GPT2Config(), 4, 64)
    assert one.parameters == 4 * 124_439_808
    total = f"{one.total / 1e9:.2f} GB"
    assert str(one).startswith(f"{total}: parameters 498 MB, gradients 498 MB, moments 996 MB, ")
    for B, T in ((0, 64), (4, 0), (4, 1025)):
        with pytest.raises(npgpt.ArgumentError, match="must be (at least|from) 1"):
            npgpt.estimate(npgpt.GPT2Config(), B, T)
    with pytest.raises(
        npgpt.ArgumentError, match="optimizer must be one of adamw, muon, not 'sgd'"
    ):
        npgpt.estimate(npgpt.GPT2Config(), 4, 64, optimizer="sgd")
    with pytest.raises(
        npgpt.ArgumentError, match="recompute must be one of False, True, 'blocks', not 'all'"
    ):
        npgpt.estimate(npgpt.GPT2Config(), 4, 64, recompute="all")


def group(folder, limit, used, names, cached=0, total=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    stat = f"anon 1\n{total}active_file {cached}\n{total}inactive_file 0\n"
    (folder / "memory.stat").write_text(stat)


VERSIONS = {
    2: ("", "0::", ("max", "current"), ""),
    1: ("memory", "4:memory:", ("limit_in_bytes", "usage_in_bytes"), "total_"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_smallest_of_the_control_groups_around_a_process_counts(version, tmp_path, monkeypatch):
    folder, prefix, names, total = VERSIONS[version]
    top = tmp_path / folder
    (tmp_path / "own").write_text(f"1:cpu:/\n{prefix}/outer/inner\n")
    group(top / "outer" / "inner", "max" if version == 2 else 2**62, 10, names, 0, total)
    group(top / "outer", 5000, 2000, names, 300, total)
    group(top, 9000, 2000, names, 0, total)
    found = [place for place, _ in memory.memory_groups(tmp_path, tmp_path / "own")]
    assert found[-3:] == [top / "outer" / "inner", top / "outer", top]
    groups = [*memory.memory_groups(tmp_path, tmp_path / "own")]
    monkeypatch.setattr(memory, "memory_groups", lambda: groups)
    assert memory.available_memory() == 3300
    group(top / "outer", 5000, 6000, names, 300, total)
    assert memory.available_memory() == 0


def test_without_control_groups_there_are_none(tmp_path):
    assert [*memory.memory_groups(tmp_path, tmp_path / "none")] == []

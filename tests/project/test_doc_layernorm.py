"""The layernorm tutorial: its two scripts, and what its blocks show. test_doc.py has the rest."""

import importlib.util

import numpy as np
import pytest
from helpers import ROOT, run, run_blocks

pytestmark = pytest.mark.slow

DOC = ROOT / "doc" / "layernorm"
THIRD_TERM = "    - xhat * (dxhat * xhat).mean(-1, keepdims=True)  # (B, T, C)\n"


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory):
    """A folder that, in front of the others, makes `import torch` fail."""
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "torch.py").write_text("raise ImportError('no torch')\n")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """layernorm.py run once: what it printed, and the reference file that it wrote."""
    path = tmp_path_factory.mktemp("reference") / "ln.bin"
    return run(DOC / "layernorm.py", path), path


@pytest.fixture
def reference(written, tmp_path):
    """A copy of the reference file, to be damaged."""
    path = tmp_path / "ln.bin"
    path.write_bytes(written[1].read_bytes())
    return path


def test_layernorm_checks_itself_and_writes_the_reference(written):
    ran, path = written
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "NOT OK" not in ran.stdout
    B, T, C = np.fromfile(path, "<i4", count=3)
    assert (B, T, C) == (3, 4, 5)
    assert path.stat().st_size == 12 + 4 * (4 * B * T * C + 4 * C + 2 * B * T)


def test_layernorm_skips_autograd_without_torch(written, no_torch, tmp_path):
    ran = run(DOC / "layernorm.py", tmp_path / "ln.bin", path=[no_torch])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "skipped" in ran.stdout
    assert (tmp_path / "ln.bin").read_bytes() == written[1].read_bytes()


def test_layernorm_exits_1_and_writes_nothing_when_a_term_is_missing(no_torch, tmp_path):
    source = (DOC / "layernorm.py").read_text(encoding="utf-8")
    assert source.count(" + through_variance") == 1
    broken = tmp_path / "broken.py"
    broken.write_text(source.replace(" + through_variance", ""), encoding="utf-8")
    ran = run(broken, tmp_path / "ln.bin", path=[no_torch])  # the differences have to find it
    assert ran.returncode == 1, ran.stderr
    assert "NOT OK" in ran.stdout
    assert not (tmp_path / "ln.bin").exists()


def test_layernorm_says_where_it_cannot_write(no_torch, tmp_path):
    ran = run(DOC / "layernorm.py", tmp_path / "missing" / "ln.bin", path=[no_torch])
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1


def test_numba_agrees_with_the_reference(reference):
    ran = run(DOC / "layernorm_numba.py", reference)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert [line[0] for line in lines] == ["out", "mean", "rstd", "dx", "dw", "db"]
    assert [line[2:] for line in lines] == [["OK"]] * 6


@pytest.mark.parametrize("value", [1e-3, np.nan])
def test_numba_exits_1_when_one_float_of_dx_is_changed(reference, value):
    B, T, C = 3, 4, 5
    floats = np.memmap(reference, "<f4", mode="r+", offset=12)
    dx = 3 * B * T * C + 2 * C + 2 * B * T  # behind x, w, b, out, mean, rstd and dout
    floats[dx + 5] += value
    floats.flush()
    ran = run(DOC / "layernorm_numba.py", reference, NUMBA_DISABLE_JIT="1")  # starts faster
    assert ran.returncode == 1, ran.stderr
    assert [line.split()[0] for line in ran.stdout.splitlines() if "NOT OK" in line] == ["dx"]


def test_numba_exits_2_when_the_file_is_truncated(reference):
    reference.write_bytes(reference.read_bytes()[:-4])
    ran = run(DOC / "layernorm_numba.py", reference)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: {reference}: damaged") and ran.stderr.count("\n") == 1
    assert ran.stdout == ""


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + bytes(4),
        lambda data: data[:8],
        lambda data: b"",
        lambda data: np.array([2**31 - 1] * 3, "<i4").tobytes() + data[12:],
        lambda data: np.array([-2, -3, 4], "<i4").tobytes() + data[12:],
    ],
    ids=["a byte short", "too long", "no header", "empty", "huge", "negative"],
)
def test_numba_refuses_a_damaged_file(reference, damage):
    spec = importlib.util.spec_from_file_location("layernorm_numba", DOC / "layernorm_numba.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    reference.write_bytes(damage(reference.read_bytes()))
    with pytest.raises(script.ReferenceFileError, match="^damaged: "):
        script.read_reference(reference)


def test_numba_exits_2_and_names_the_command_when_the_file_is_missing(tmp_path):
    ran = run(DOC / "layernorm_numba.py", tmp_path / "ln.bin")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
    assert f"python {DOC / 'layernorm.py'} {tmp_path / 'ln.bin'}" in ran.stderr


@pytest.fixture(scope="module")
def text():
    return (DOC / "layernorm.md").read_text(encoding="utf-8")


def test_tutorial_shows_what_it_prints(text, tmp_path):
    ran = run_blocks(text, tmp_path)
    assert ran.returncode == 0, ran.stderr
    for line in ran.stdout.splitlines()[:4]:  # the first report is shown as it is
        assert line[:26] in text


def test_tutorial_stops_at_a_wrong_formula(text, tmp_path):
    assert text.count(THIRD_TERM) == 1
    ran = run_blocks(text.replace(THIRD_TERM, "\n"), tmp_path)
    assert ran.returncode == 1
    assert "np.testing.assert_allclose(dx, compact" in ran.stderr

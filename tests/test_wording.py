"""How numbers, sizes and commands are written; a command can be pasted as it stands."""

import os
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT

from npgpt import wording
from npgpt.wording import as_command, command, counted, install_extra, size_text


def test_a_noun_is_plural_unless_there_is_one():
    words = [counted(number, "token") for number in (0, 1, 2, 1002)]
    assert words == ["0 tokens", "1 token", "2 tokens", "1,002 tokens"]


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (499, "499 bytes"),
        (1_499, "1 kB"),
        (600_000, "600 kB"),
        (999_400, "999 kB"),
        (999_600, "1 MB"),
        (170_400_000, "170 MB"),
        (999_400_000, "999 MB"),
        (1_350_000_000, "1.35 GB"),
        (2_500_000_000_000_000, "2,500.00 TB"),
    ],
)
def test_a_size_is_in_the_largest_unit_of_which_it_is_one(n_bytes, text):
    assert size_text(n_bytes) == text


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder with a virtual environment in it, where the shell finds nothing."""
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("npgpt", "python"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sys, "argv", [os.path.join(".venv", "bin", "npgpt"), "train"])
    return folder


@pytest.mark.skipif(os.name == "nt", reason="the paths are POSIX's")
def test_a_command_is_as_npgpt_was_started(programs, monkeypatch):
    assert command("sample", "--model", "my run") == ".venv/bin/npgpt sample --model 'my run'"
    monkeypatch.chdir(programs)
    monkeypatch.setattr(sys, "argv", ["./npgpt"])
    assert command("train") == "./npgpt train"
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [str(programs / "npgpt")])
    assert command("train") == f"{programs}/npgpt train"
    monkeypatch.setenv("PATH", str(programs))  # as activate does
    assert command("train") == "npgpt train"


@pytest.mark.skipif(os.name == "nt", reason="the paths are POSIX's")
def test_where_python_was_started_a_command_is_python_s(programs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/npgpt/train_gpt2.py"])
    assert command("train") == ".venv/bin/python -m npgpt train"
    monkeypatch.setenv("PATH", str(programs))
    assert command("train") == "python -m npgpt train"


def test_another_python_of_the_same_name_is_not_meant(programs, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "npgpt").write_text("#!/bin/sh\n")
    (other / "npgpt").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    assert command("train") == os.path.join(".venv", "bin", "npgpt") + " train"


def test_a_command_for_powershell(monkeypatch):
    monkeypatch.setattr(wording.os, "name", "nt")
    words = [".venv\\Scripts\\python", "-m", "pip", "install", "-e", ".[hf]"]
    assert as_command(words) == '.venv\\Scripts\\python -m pip install -e ".[hf]"'
    assert as_command(["C:\\my env\\npgpt", "train"]) == '& "C:\\my env\\npgpt" train'


def test_an_extra_of_a_clone_is_installed_from_there(programs, monkeypatch):
    python = os.path.join(".venv", "bin", "python")
    assert install_extra("hf") == as_command([python, "-m", "pip", "install", "-e", f"{ROOT}[hf]"])
    monkeypatch.chdir(ROOT)
    assert shlex.split(install_extra("hf"))[1:] == ["-m", "pip", "install", "-e", ".[hf]"]
    monkeypatch.chdir(ROOT.parent)
    assert shlex.split(install_extra("hf"))[-1] == f"./{ROOT.name}[hf]"


def test_an_extra_of_a_wheel_is_the_packages_that_it_names(tmp_path):
    """By the metadata of the installed npgpt, or none."""
    packages = tmp_path / "site-packages"
    (packages / "npgpt").mkdir(parents=True)
    (packages / "npgpt" / "__init__.py").write_text("")
    (packages / "npgpt" / "wording.py").write_text(
        (ROOT / "npgpt" / "wording.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    metadata = packages / "npgpt-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: npgpt\nVersion: 0.1.0\nRequires-Dist: numpy>=2.0\n"
        'Requires-Dist: safetensors>=0.4.3; extra == "hf"\n'
        'Requires-Dist: tokenizers>=0.20; extra == "hf"\n'
        'Requires-Dist: matplotlib>=3.8; extra == "plot"\n'
    )
    code = "from npgpt.wording import install_extra; print(install_extra('hf'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=packages, check=True
    )
    expected = ["-m", "pip", "install", "safetensors>=0.4.3", "tokenizers>=0.20"]
    assert shlex.split(done.stdout)[1:] == expected

"""The README: its code runs, and what it shows is what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", blocks("python"))
def test_its_python_runs(code, tmp_path):
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout or "she sells sea shells by the sea" in done.stdout


def test_its_output_is_the_programs(tmp_path):
    """But for the last digits of differences and the times."""
    command = [sys.executable, "-m", "npgpt.test_gpt2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    def shape(text):
        return re.sub(r"\d+\.\d+(e[+-]\d+)?|\d+(?= ms)", "#", text)

    assert shape(blocks("text")[0]) == shape(done.stdout)


def test_its_layer_is_the_layer():
    source = (ROOT / "npgpt" / "layers" / "layernorm.py").read_text(encoding="utf-8")
    without_docstrings = re.sub(r'^ *""".*?"""\n+', "", source, flags=re.DOTALL | re.MULTILINE)
    assert blocks("text")[1] == without_docstrings


def test_its_map_names_every_module_and_no_other():
    table = README.split("## The map")[1].split("## ")[0]
    named = set(re.findall(r"`([\w/]+\.py)`", table))
    modules = {
        str(path.relative_to(ROOT))
        for folder in ("npgpt", "npgpt/layers", "scripts")
        for path in (ROOT / folder).glob("*.py")
    }
    assert named == {m for m in modules if not m.endswith("__init__.py")}


def test_its_links_resolve():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target

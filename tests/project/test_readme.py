"""The README: its code runs, and what it shows is what there is."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import npgpt

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def run(folder, *command):
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_gradient_check_finds_all_three_gradients_right(tmp_path):
    rows = run(tmp_path, "-W", "error", "-c", blocks("python")[1]).splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["dx", "dw", "db"]
    assert all(row.endswith("  OK") for row in rows)


def test_its_training_learns_the_sentence_and_writes_a_checkpoint(tmp_path):
    assert len(blocks("python")) == 2
    out = run(tmp_path, "-W", "error", "-c", blocks("python")[0])
    assert "she sells sea shells by the sea" in out
    assert npgpt.read_checkpoint(tmp_path / "shells.bin").config.n_embd == 64


def masked(text):
    """A text without its differences, times and losses."""
    return re.sub(r"\d\.\de[+-]\d+|\d+(?= ms)|(?<= )\d\.\d{6}", "#", text)


def losses(text):
    return [float(number) for number in re.findall(r"(?<= )\d\.\d{6}", text)]


def shows(shown, printed):
    """Whether shown is printed to the letter, pieces of it left out where it has a line `...`."""
    pieces = shown.split("...\n")
    return all(piece in printed for piece in pieces) and len(pieces) > 1


def test_its_output_is_the_programs(tmp_path):
    """To the letter but for the differences and the times; losses within 1e-5."""
    shown, printed = blocks("text")[0], run(tmp_path, "-m", "npgpt.test_gpt2")
    assert shows(masked(shown), masked(printed))
    assert not shows(masked(shown).replace("OK", "NOT OK"), masked(printed))
    assert len(losses(printed)) == 20
    np.testing.assert_allclose(losses(shown), losses(printed)[-2:], atol=1e-5)


def test_its_layer_is_the_layer():
    source = (ROOT / "npgpt" / "layers" / "layernorm.py").read_text(encoding="utf-8")
    without_docstrings = re.sub(r'^ *""".*?"""\n+', "", source, flags=re.DOTALL | re.MULTILINE)
    assert blocks("text")[2] == without_docstrings


def test_its_training_prints_what_it_shows():
    """The answers and the numbers of documents; `.ci/run` trains it."""
    shown = blocks("text")[1].splitlines()
    assert shown[0].startswith("step 1500/1500: loss 0.83") and shown[1].startswith("done: 1,500")
    assert shown[2] == "sample from it: .venv/bin/npgpt sample --model sums"
    assert shown[3:] == ["exact answers  1.0000", "documents      1,002", "12+34=046"]


def test_its_links_resolve():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_map_names_rooms_that_exist_and_every_folder_of_npgpt():
    table = CONTRIBUTING.split("## Where things are")[1]
    named = re.findall(r"^\| `([\w/]+)/` \|", table, re.MULTILINE)
    assert [name for name in named if not (ROOT / name).is_dir()] == []
    folders = {f"npgpt/{path.name}" for path in (ROOT / "npgpt").iterdir() if path.is_dir()}
    assert folders - {"npgpt/__pycache__"} <= set(named)


def test_contributing_names_files_that_exist():
    text = CONTRIBUTING
    paths = re.findall(r"`((?:tests|doc|scripts|npgpt|kernels|bench)/[a-z0-9_/]+\.\w+)`", text)
    assert len(paths) > 5
    for path in paths:
        assert (ROOT / path).exists(), path

"""The command `npgpt` and what all programs share."""

import subprocess
import sys
from pathlib import Path

import pytest

import npgpt
from npgpt.__main__ import PROGRAMS, main
from npgpt.cli import program


def run(*args, **kwargs):
    command = [sys.executable, "-m", "npgpt", *args]
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def test_version_and_help():
    assert run("--version").stdout == f"npgpt {npgpt.__version__}\n"
    shown = run("--help").stdout
    assert all(name in shown for name in PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_has_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: npgpt {name}")


def test_a_program_gets_its_arguments_and_gives_its_status(capsys):
    assert main(["test", "--steps", "1"]) == 0
    assert "overall okay: True" in capsys.readouterr().out
    assert main(["test", "--steps", "0"]) == 2


@pytest.mark.parametrize("args", [["tset"], ["prepare"], ["prepare", "x"]])
def test_an_unknown_program_is_one_sentence(args, capsys):
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: there is no program {' '.join(args)}: ")
    assert "npgpt test?" in said or (
        "npgpt prepare text FILE; there are prepare shakespeare, prepare stories, " in said
    )
    assert said.count("\n") == 1


def test_without_a_program_it_lists_them():
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"\n  {name}" in done.stderr for name in PROGRAMS)


def test_a_reader_that_leaves_early_is_no_error():
    pipe = f"{sys.executable} -m npgpt test | head -n 1"
    done = subprocess.run(pipe, shell=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("checking")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_an_output_that_is_full_is_one_sentence():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "npgpt", "test"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (npgpt.FileError("f: gone"), 2, "error: f: gone\n"),
        (MemoryError("Unable to allocate 9 GiB"), 2, "error: not enough memory: Unable to"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_how_a_program_ends(raised, status, message, capsys):
    @program
    def failing(argv, prog):
        raise raised

    assert failing() == status
    assert capsys.readouterr().err.startswith(message)


def test_a_mistake_of_ours_is_not_hidden():
    @program
    def failing(argv, prog):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        failing()

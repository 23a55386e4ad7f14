"""Runs that are stopped, share a folder, lose their data, or have too little memory."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.reliability.runs import (
    LONGEST,
    check_checkpoints,
    command,
    content,
    finish,
    make_data,
    resume,
    start,
    whole,
)
from npgpt.formats.run_checkpoint import checkpoint_steps


def stopped(numbers, folder, name):
    """A run that gets these signals in the middle, and is continued, is the undisturbed one."""
    run = folder / name
    process = start(command(folder, run))
    wait_for_step(run, process)
    for number in numbers:
        process.send_signal(number)
        if number == signal.SIGSTOP:
            time.sleep(0.5)
        elif len(numbers) > 1 and number != signal.SIGCONT:
            time.sleep(1.2)
    process.communicate(timeout=LONGEST)
    if signal.SIGCONT in numbers:
        assert process.returncode == 0
    else:
        # -numbers[-1]: the second one came when the state was saved and Python was closing down
        ends = (128 + numbers[0], 130, 0, -numbers[-1])
        assert process.returncode in ends, process.returncode
    if process.returncode:
        check_checkpoints(run)
        whole(resume(run))
    return content(run)


def wait_for_step(run, process):
    """Wait until a run has its first checkpoint."""
    while not checkpoint_steps(run):
        assert process.poll() is None, process.communicate()[1].decode()[-500:]
        time.sleep(0.01)


def stress():
    """Runs under each kind of stress -> {what: what it does}; AssertionError where it does not."""
    done = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_data(folder)
        whole(command(folder, folder / "whole"))
        expected = content(folder / "whole")
        for what, numbers in {
            "SIGTERM": (signal.SIGTERM,),
            "SIGHUP": (signal.SIGHUP,),
            "SIGINT": (signal.SIGINT,),
            "SIGINT twice": (signal.SIGINT, signal.SIGINT),
            "SIGSTOP, then SIGCONT": (signal.SIGSTOP, signal.SIGCONT),
        }.items():
            assert stopped(numbers, folder, what) == expected, what
            done[what] = "saved, continued, and bit for bit the undisturbed run"
        done["SIGSTOP, then SIGCONT"] = "goes on, and is bit for bit the undisturbed run"
        assert clock_set_back(folder) == expected
        done["the clock is set back at every look at it"] = "bit for bit the undisturbed run"
        two_in_one_folder(folder)
        done["two runs in one folder"] = "the second ends with a sentence, the first goes on"
        cut_data(folder)
        done["the training data is cut in place"] = "a sentence; what was trained is saved"
        done["a control group with less memory than a step takes"] = little_memory(folder)
    return done


def clock_set_back(folder):
    """A run whose every time.time() is an hour before the last one."""
    code = (
        "import itertools, sys, time\n"
        "later = itertools.count(time.time(), -3600.0)\n"
        "time.time = lambda: next(later)\n"
        "from npgpt.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    run = folder / "clock"
    whole([sys.executable, "-c", code, *command(folder, run)[3:]])
    return content(run)


def two_in_one_folder(folder):
    """A second process in the folder of a run in training."""
    run = folder / "two"
    first = start(command(folder, run, steps=100_000))
    try:
        wait_for_step(run, first)
        for words in (resume(run), command(folder, run)):
            _, err = finish(start(words), status=2)
            assert "in use by another process" in err or "there is a run in this folder" in err, err
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGTERM)
        finish(first, status=128 + signal.SIGTERM)


def cut_data(folder):
    """A run whose training data is cut while it reads it."""
    (folder / "cut").mkdir()
    make_data(folder / "cut")
    run = folder / "cut" / "run"
    process = start(command(folder / "cut", run, steps=100_000))
    wait_for_step(run, process)
    os.truncate(folder / "cut" / "train.bin", 2000)
    _, err = finish(process, status=2)
    assert "train.bin: was changed while in use" in err and "Traceback" not in err, err
    assert check_checkpoints(run) > 0


def little_memory(folder):
    """A model that is too large for a control group of the kernel -> what was seen, in words."""
    for group, limit in (
        (Path("/sys/fs/cgroup/npgpt"), "memory.max"),
        (Path("/sys/fs/cgroup/memory/npgpt"), "memory.limit_in_bytes"),
    ):
        try:
            group.mkdir(exist_ok=True)
            if not (group / "cgroup.procs").exists():  # a folder like any other
                group.rmdir()
                continue
            (group / limit).write_text("1000000000")
        except OSError:
            continue
        try:
            words = command(folder, folder / "large", n_layer=24, n_embd=1024, n_head=16)
            enter = f'echo $$ > {group / "cgroup.procs"} && exec "$@"'
            _, err = finish(start(["sh", "-c", enter, "sh", *map(str, words)]), status=2)
            assert "GB of memory, but" in err and "is available" in err, err
            assert not (folder / "large").exists()
        finally:
            group.rmdir()
        return "a sentence, before anything is allocated or written"
    return "not tried: no control group can be made here"

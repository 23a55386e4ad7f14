"""Runs of `npgpt train`, what they leave, and runs that are killed at random."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from npgpt.data.descriptions import description_file
from npgpt.data.token_files import write_tokens
from npgpt.formats.run_checkpoint import checkpoint_folder, checkpoint_steps, load_checkpoint
from npgpt.model.optimizer import OPTIMIZERS

STEPS = 60
SETTINGS = {
    "n_layer": 2, "n_head": 2, "n_embd": 16, "B": 2, "T": 16, "steps": STEPS, "val_every": 7,
    "val_batches": 2, "checkpoint_every": 3, "keep": 2, "lr": 1e-2, "sample_every": 20,
    "sample_tokens": 5,
}  # fmt: skip
LONGEST = 600  # seconds of a process, after which it counts as hanging


def make_data(folder):
    """Write a file of tokens to train on, and one to validate on."""
    rng = np.random.default_rng(1)
    for name in ("train", "val"):
        path = folder / f"{name}.bin"
        letters = rng.integers(97, 123, 4000)
        letters[::10] = 256
        write_tokens(path, letters, companions=description_file(path, {"name": "bytes"}))


def command(folder, run, **changes):
    """The command that starts a run in a folder that has the data."""
    settings = {**SETTINGS, "train": folder / "train.bin", "val": folder / "val.bin", "run": run}
    words = [
        f"--{name.replace('_', '-')}={value}" for name, value in {**settings, **changes}.items()
    ]
    return [sys.executable, "-m", "npgpt", "train", *words]


def resume(run):
    """The command that continues a run."""
    return [sys.executable, "-m", "npgpt", "train", "--resume", str(run)]


def start(words, **options):
    """Start a command whose output is kept."""
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finish(process, status=0):
    """Wait for a process -> its output; AssertionError for another exit status."""
    out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == status, f"{process.returncode}: {err.decode()[-500:]}"
    return out.decode(), err.decode()


def whole(words):
    """Run a command to its end -> its output."""
    return finish(start(words))


def content(run):
    """Everything of a run that must be the same, bit for bit: its checkpoints, logs and samples."""
    digest = hashlib.sha256()
    for path in sorted([*run.glob("checkpoints/*/*"), *run.glob("samples/*"), run / "main.log"]):
        digest.update(str(path.relative_to(run)).encode() + path.read_bytes())
    for line in (run / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        kept = {key: entry[key] for key in entry if key not in ("seconds", "tokens_per_second")}
        digest.update(json.dumps(kept).encode())
    return digest.hexdigest()


def check_checkpoints(run):
    """Read every checkpoint of a run, checksums included -> the step of the newest, or 0."""
    steps = checkpoint_steps(run) if run.exists() else []
    for step in steps:
        load_checkpoint(checkpoint_folder(run, step), OPTIMIZERS["adamw"].MOMENTS)
    return steps[-1] if steps else 0


def random_kills(count, seed=0, progress=lambda: None):
    """Kill runs at random times, go on with each until it is done -> a dict of counts.

    Raises AssertionError where a checkpoint is not whole, progress is lost, or the finished run is
    not bit for bit the one that nothing happened to.
    """
    rng, kills, finished = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_data(folder)
        whole(command(folder, folder / "compiles"))
        begin = time.perf_counter()
        whole(command(folder, folder / "whole"))
        seconds = time.perf_counter() - begin
        expected = content(folder / "whole")
        while kills < count:
            run, newest, is_killed = folder / f"run{finished}", 0, True
            while is_killed:
                started = (run / "settings.toml").exists()
                process = start(resume(run) if started else command(folder, run))
                patience = rng.uniform(0.1, 1.1) * seconds if kills < count else LONGEST
                is_killed = kill_after(process, patience)
                kills += is_killed
                progress()
                steps = check_checkpoints(run)
                assert steps >= newest, f"step {newest} was there, and now {steps} is the newest"
                newest = steps
            assert content(run) == expected, "the run is not the one that nothing happened to"
            finished += 1
    return {"kills": kills, "runs": finished}


def kill_after(process, seconds):
    """Kill a process after so many seconds -> whether it had not ended by itself."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    finish(process, -signal.SIGKILL if process.wait() else 0)
    return process.returncode != 0

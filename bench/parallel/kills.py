"""Ranks that are killed or stopped at a random step: how it ends, and how it goes on."""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.parallel.launch import LONGEST, command, finish, ranks_of, start
from bench.parallel.losses import read_log
from bench.reliability.runs import check_checkpoints, content, make_data

SILENCE = 5  # seconds: NPGPT_RANK_TIMEOUT
STATED = SILENCE + 5  # seconds in which all has ended after a rank was lost
RANKS, STEPS = 2, 300
SETTINGS = {
    "n_layer": 2, "n_head": 2, "n_embd": 32, "B": 4, "T": 16, "lr": 1e-3, "steps": STEPS,
    "val_every": 50, "val_batches": 2, "checkpoint_every": 10, "sample_every": 100,
    "sample_tokens": 5,
}  # fmt: skip


def training(folder, run):
    values = {**SETTINGS, "train": folder / "train.bin", "val": folder / "val.bin", "run": run}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    return command(RANKS, "-m", "npgpt", "train", *options)


def lose_ranks(count, seed=0, progress=lambda: None):
    """Lose a rank `count` times -> a dict for each; AssertionError where one is not survived."""
    rng, found = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_data(folder)
        finish(training(folder, folder / "whole"))
        expected, losses = content(folder / "whole"), read_log(folder / "whole")[0]
        for i in range(count):
            run, number = folder / f"run{i}", (signal.SIGKILL, signal.SIGSTOP)[i % 2]
            rank, at = rng.randrange(RANKS), rng.randrange(1, STEPS - 20)
            seconds, words = lose(training(folder, run), run, rank, number, at)
            steps = check_checkpoints(run)
            ranks = (RANKS, 1, 4)[i // 2 % 3]
            finish(command(ranks, "-m", "npgpt", "train", "--resume", str(run)))
            apart = float(np.abs(read_log(run)[0] - losses).max())
            same = content(run) == expected
            assert same or ranks != RANKS, (
                f"{run}: not the bits of the run that nothing happened to"
            )
            assert apart < 1e-5, f"{run}: on {ranks} ranks the losses are {apart} apart"
            found.append({
                "signal": number.name, "rank": rank, "step": at, "seconds": seconds, "told": words,
                "checkpoint": steps, "resumed on": ranks, "largest difference": apart, "same": same,
            })  # fmt: skip
            progress()
    return found


def lose(words, run, rank, number, at):
    """Start ranks, send one a signal after some steps -> the seconds to the end, what was told."""
    process = start(words, NPGPT_RANK_TIMEOUT=str(SILENCE))
    begin = time.monotonic()
    log = run / "log.jsonl"
    while not (log.exists() and log.read_text().count('"loss"') >= at):
        assert process.poll() is None and time.monotonic() - begin < LONGEST
        time.sleep(0.01)
    lost = ranks_of(run)[rank]
    os.kill(lost, number)
    begin = time.monotonic()
    _, err = process.communicate(timeout=LONGEST)
    seconds = time.monotonic() - begin
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert process.returncode != 0 and seconds < STATED, f"{seconds:.1f} s: {err[-300:]}"
    assert len(told) == 1 and f"rank {rank} (process {lost} on " in told[0], err[-300:]
    assert ranks_of(run) == {}, "ranks are left"
    return seconds, told[0]

"""Systems measured in turn, each time in a fresh process, so that all see the same machine."""

import json
import os
import subprocess
import sys

from bench.results import ROOT
from npgpt import NpgptError, get_threads


def child(*command, **env):
    """The JSON that a module prints last, run in a process of its own with these variables."""
    command = [sys.executable, "-m", *map(str, command)]
    env = {**os.environ, "OMP_NUM_THREADS": str(get_threads()), **env}  # the same for all of them
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise NpgptError(f"{' '.join(command)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(names, rounds, measure):
    """Name -> what measure(name) gave in each round; each round begins with the next name."""
    runs = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            print(f"round {turn + 1} of {rounds}, {name}", file=sys.stderr, flush=True)
            runs[name].append(measure(name))
    return runs

"""Try out what npgpt promises of damaged files, failing disks and killed processes; count it.

Each part writes a result below bench/results/; `python -m bench.report` makes doc/reliability.md of
them. A promise that is not kept ends the program with an AssertionError that names it. Linux only.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

from tqdm import tqdm

from bench import machine, report, results
from bench.options import count
from bench.reliability import coverage, faults, fuzz, kills, repetitions, runs, stress
from bench.reliability.readers import READERS
from bench.reliability.writers import WRITERS
from npgpt.cli import Parser, program

PIECES = 8  # of the inputs for a reader, each read in a process of its own
SUMS = ("inputs", "read", "refused", "unhandled", "slow")


def fuzz_readers(args):
    """Damaged files for each reader; of readers that are left out, the results of before stay."""
    pieces = [
        (name, args.inputs // PIECES + 1, piece) for name in args.readers for piece in range(PIECES)
    ]
    before = counts_of_before()
    total = {name: before[name] for name in before if name not in args.readers}
    with ProcessPoolExecutor(args.workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        for found in tqdm(
            pool.map(fuzz.in_a_process, pieces), total=len(pieces), desc="damaged files"
        ):
            name = found["reader"]
            if name not in total:
                total[name] = {**found, "commit": results.commit()}
                continue
            kept = total[name]
            kept |= {sum_: kept[sum_] + found[sum_] for sum_ in SUMS}
            kept["slowest"] = max(kept["slowest"], found["slowest"])
            kept["faults"] += found["faults"]
    return {"readers": [total[name] for name in READERS if name in total]}


def counts_of_before():
    """What was counted for each reader on this kind of machine, {reader: count}."""
    path = results.RESULTS / results.slug(machine.describe()) / "reliability_fuzz.json"
    if not path.exists():
        return {}
    before = results.read_result(path)
    return {count["reader"]: {"commit": before["commit"], **count} for count in before["readers"]}


def guided(args):
    """Damaged files that are guided by what they reach, for each reader."""
    with ThreadPoolExecutor(args.workers) as pool:
        runs = pool.map(lambda name: coverage.campaign(name, args.guided_seconds), args.readers)
        counts = list(tqdm(runs, total=len(args.readers), desc="guided by coverage"))
    return {"readers": counts, "seconds each": args.guided_seconds}


def inject_faults(args):
    """A failure in each call of each writer."""
    return {"writers": [faults.inject(name) for name in tqdm(WRITERS, desc="failing calls")]}


def kill_writers(args):
    """A kill before and after each system call of each writer."""
    return {"writers": [kills.kill_everywhere(name) for name in tqdm(WRITERS, desc="kill points")]}


def kill_runs(args):
    """Runs killed at random times."""
    with tqdm(total=args.kills, desc="random kills") as bar:
        return runs.random_kills(args.kills, progress=bar.update)


def stress_runs(args):
    """Signals, the clock, two runs in a folder, cut data, little memory."""
    return {"stress": stress.stress()}


def repeat_trainings(args):
    """The same training many times."""
    precisions = ["fp32", "bf16"] if machine.describe()["bf16"] != "none" else ["fp32"]
    return {"repetitions": [repetitions.repeat(args.repetitions, 16, name) for name in precisions]}


PARTS = {
    "fuzz": fuzz_readers,
    "faults": inject_faults,
    "kill_points": kill_writers,
    "random_kills": kill_runs,
    "stress": stress_runs,
    "repetitions": repeat_trainings,
    "guided": guided,
}
WITHOUT_ATHERIS = [part for part in PARTS if part != "guided"]


@program
def main(argv=None, prog=None):
    """Run the parts and write their results."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=WITHOUT_ATHERIS,
        help="these parts; default: all but guided, which needs the package atheris",
    )  # fmt: skip
    parser.add_argument(
        "--readers", nargs="+", choices=READERS, default=[*READERS], help="damaged files for these"
    )
    for option, default, text in (
        ("--inputs", 1_000_000, "damaged files for each reader"),
        ("--kills", 1000, "random kills of runs"),
        ("--repetitions", 1000, "of a training, in each precision"),
        ("--guided-seconds", 60, "seconds for each reader in the part guided"),
        ("--workers", 2, "processes that read damaged files"),
    ):
        parser.add_argument(
            option, type=count, default=default, metavar="N", help=f"{text}; default: {default:,}"
        )
    args = parser.parse_args(argv)
    if "guided" in args.only and find_spec("atheris") is None:
        parser.error("atheris is missing: pip install atheris")
    for part in args.only:
        start = time.perf_counter()
        content = PARTS[part](args)
        content["seconds"] = round(time.perf_counter() - start, 1)
        name = f"reliability_{part}"
        _, path = results.write_result(name, name, machine.describe(), content)
        print(f"wrote {path}")
    report.main([])
    return 0


if __name__ == "__main__":
    sys.exit(main())

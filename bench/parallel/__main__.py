"""Training on several ranks, measured.

python -m bench.parallel times     2 ranks of 1 thread beside 1 rank of 2, GPT-2 124M, B=4, T=64
python -m bench.parallel losses    1, 2 and 4 ranks: their losses beside each other, in all orders
python -m bench.parallel kills     ranks killed and stopped, twenty times
python -m bench.parallel network   2 ranks over links of 1 Gb/s and 100 Mb/s; Linux, as root

Needs the extra `mpi`. times and network need a machine that does nothing else.
"""

import json
import sys

from bench import tables
from bench.machine import describe
from bench.options import make_parser
from bench.parallel import kills, losses, network
from bench.parallel.launch import command, finish
from bench.results import write_result
from bench.turns import take_turns
from npgpt.cli import program

WAYS = {  # name -> ranks, threads of each, settings
    "1 rank, 2 threads": (1, 2, {}),
    "2 ranks, 1 thread each": (2, 1, {}),
    "the same, optimizer not in shards": (2, 1, {"shard_optimizer": False}),
    "the same, bf16 on the wire": (2, 1, {"wire": "bf16"}),
}


def times(args):
    """Seconds of a step in each of WAYS, the same sequences in all."""

    def measure(name):
        ranks, threads, settings = WAYS[name]
        values = {"B": 2 * args.B // ranks, "T": args.T, "threads": threads, "steps": args.steps}
        words = ("-m", "bench.parallel.steps", json.dumps({**values, **settings}))
        return json.loads(finish(command(ranks, *words)).splitlines()[-1])

    found = {}
    for name, runs in take_turns([*WAYS], args.rounds, measure).items():
        found[name] = {
            "seconds": sum((run["seconds"] for run in runs), []),
            "exposed": sum((run["exposed"] for run in runs), []),
            "copy": [run["copy"] for run in runs],
            "bytes": runs[0]["bytes"],
        }
    return f"parallel_{args.B}x{args.T}", {"B": args.B, "T": args.T, "ways": found}


def run_losses(args):
    return "parallel_losses", losses.differences(dot)


def run_kills(args):
    return "parallel_kills", {"stated": kills.STATED, "kills": kills.lose_ranks(20, 0, dot)}


def run_network(args):
    if network.why_not():
        sys.exit(f"error: {network.why_not()}")
    name = f"parallel_network_{args.B}x{args.T}"
    return name, network.compare(args.B, args.T, args.steps)


PROGRAMS = {
    "times": ("parallel", times), "losses": ("parallel_losses", run_losses),
    "kills": ("parallel_kills", run_kills), "network": ("parallel_network", run_network),
}  # fmt: skip


def dot():
    print(".", end="", file=sys.stderr, flush=True)


@program
def main(argv=None, prog=None):
    """Measure, write the result and print its table."""
    parser = make_parser(prog, __doc__, B=4, T=64, rounds=3, steps=5)
    parser.add_argument("what", choices=PROGRAMS, metavar="WHAT", help=", ".join(PROGRAMS))
    args = parser.parse_args(argv)
    name, measure = PROGRAMS[args.what]
    file, content = measure(args)
    result, path = write_result(name, file, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

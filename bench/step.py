"""A training step of GPT-2 124M: npgpt and PyTorch in turn, each time in a fresh process.

python -m bench.step                        B=4, T=64, and where the time goes
python -m bench.step -T 1024 --rounds 2 --steps 2

Where the time goes is npgpt's in float32 or in another --precision.
"""

import sys

from bench import tables
from bench.machine import describe
from bench.options import make_parser, require
from bench.profile import profile
from bench.results import write_result
from bench.systems import SYSTEMS
from bench.turns import child, take_turns
from npgpt.cli import program
from npgpt.core.precision import PRECISIONS
from npgpt.model.backend import make_backend

DEFAULT = ["npgpt", "npgpt, recompute", "PyTorch, eager", "PyTorch, compiled"]


def measure(systems, B, T, rounds, steps):
    """Each system's steps over all rounds, and the machine's limits, as a result has them."""

    def run(name):
        if name == "limit":
            return child("bench.machine", B, T)
        return child("bench.systems", name, "-B", B, "-T", T, "--steps", steps)

    runs = take_turns([*systems, "limit"], rounds, run)
    limits = runs.pop("limit")
    return {
        "systems": {name: merged(its) for name, its in runs.items()},
        "limit": {key: [limit[key] for limit in limits] for key in limits[0]},
    }


def merged(runs):
    """One system's runs as one: all steps, the first step of each run, the largest peak."""
    return {
        "seconds": [second for run in runs for second in run["seconds"]],
        "first": [run["first"] for run in runs],
        "peak": max(run["peak"] for run in runs),
    }


@program
def main(argv=None, prog=None):
    """Measure the systems, write the result and print its table."""
    parser = make_parser(prog, __doc__, B=4, T=64, rounds=3, steps=5)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT, metavar="NAME")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    args = parser.parse_args(argv)
    make_backend("numba", args.precision)
    require(parser, *["torch"] * any(name.startswith("PyTorch") for name in args.systems))
    if "npgpt" not in args.systems:
        parser.error("--systems must have npgpt among them, to which the others are compared")
    sizes = {"B": args.B, "T": args.T, "rounds": args.rounds, "steps": args.steps}
    measured = measure(args.systems, **sizes)
    seconds = profile(args.B, args.T, args.steps, args.precision)
    content = {
        **sizes, **measured, "breakdown": {"precision": args.precision, "seconds": seconds},
    }  # fmt: skip
    name = f"step_{args.B}x{args.T}"
    result, path = write_result("step", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A training step of a GPT-2: npgpt and PyTorch in turn, each time in a fresh process.

python -m bench.step                        GPT-2 124M, B=4, T=64, and where the time goes
python -m bench.step --size nanogpt_cpu

Where the time goes is npgpt's in float32 or in another --precision. Nothing is written unless all
systems have the same losses, as near as their precisions allow.
"""

import sys

from bench import tables
from bench.machine import describe, supported
from bench.options import make_parser, require
from bench.profile import profile
from bench.results import write_result
from bench.sizes import add_size, choose_size, model_name, result_name
from bench.systems import SYSTEMS
from bench.turns import child, take_turns
from npgpt import NpgptError
from npgpt.cli import program
from npgpt.core.precision import PRECISIONS
from npgpt.model.backend import make_backend

ON_REQUEST = (  # not among the default --systems
    "npgpt, recompute", "npgpt, recompute blocks", "npgpt, bf16, recompute blocks",
    "npgpt, NumPy layers",
)  # fmt: skip
COMPARED = 10  # losses of each run, as in npgpt test


def default_systems():
    """The systems that this CPU can run in their own precision."""
    return supported(name for name in SYSTEMS if name not in ON_REQUEST)


def measure(systems, size, B, T, rounds, steps):
    """Each system's steps over all rounds, and the machine's limits, as a result has them."""

    def run(name):
        if name == "limit":
            return child("bench.machine", size, B, T)
        words = ("--size", size, "-B", B, "-T", T, "--steps", steps)
        return child("bench.systems", name, *words)

    runs = take_turns([*systems, "limit"], rounds, run)
    limits = runs.pop("limit")
    check_losses(runs)
    return {
        "systems": {name: merged(its) for name, its in runs.items()},
        "limit": {key: [limit[key] for limit in limits] for key in limits[0]},
    }


def check_losses(runs):
    """Raise NpgptError where a system's losses are not those of npgpt in float32."""
    expected = runs["npgpt"][0]["losses"][:COMPARED]
    for name, its in runs.items():
        tolerance = PRECISIONS[tables.precision_of(name)].tolerances["losses"]
        for run in its:
            for i, (loss, other) in enumerate(zip(expected, run["losses"], strict=False)):
                if not abs(loss - other) <= tolerance:
                    raise NpgptError(
                        f"{name} does not compute what npgpt does: the loss of step {i} must be"
                        f" {loss:.6f}, within {tolerance}, but is {other:.6f}"
                    )


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
    parser = make_parser(prog, __doc__, B=None, T=None, rounds=3, steps=None)
    add_size(parser)
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, metavar="NAME",
        help=f"{'; '.join(SYSTEMS)}; default: those that this CPU has a precision for,"
        f" but for {' and '.join(ON_REQUEST)}",
    )  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    args = parser.parse_args(argv)
    config = choose_size(parser, args)
    make_backend("numba", args.precision)
    systems = args.systems or default_systems()
    require(parser, *["torch"] * any(name.startswith("PyTorch") for name in systems))
    if "npgpt" not in systems:
        parser.error("--systems must have npgpt among them, to which the others are compared")
    sizes = {"B": args.B, "T": args.T, "rounds": args.rounds, "steps": args.steps}
    measured = measure(systems, args.size, **sizes)
    seconds = profile(config, args.B, args.T, args.steps, args.precision)
    content = {
        "model": model_name(args.size), **sizes, **measured,
        "breakdown": {"precision": args.precision, "seconds": seconds},
    }  # fmt: skip
    name = result_name("step", args.size, args.B, args.T)
    result, path = write_result("step", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

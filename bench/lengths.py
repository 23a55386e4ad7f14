"""How npgpt's training step of GPT-2 124M grows with T, in one precision.

python -m bench.lengths --precision bf16    T = 64, 128, ... 1024
"""

import sys

from bench import tables
from bench.machine import describe
from bench.options import make_parser
from bench.results import write_result
from bench.turns import child
from npgpt.cli import program
from npgpt.core.precision import PRECISIONS
from npgpt.model.backend import make_backend

LENGTHS = 64, 128, 256, 512, 1024


@program
def main(argv=None, prog=None):
    """Measure all lengths, write the result and print its table."""
    parser = make_parser(prog, __doc__, B=4, steps=5)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    args = parser.parse_args(argv)
    make_backend("numba", args.precision)
    system = "npgpt" if args.precision == "fp32" else f"npgpt, {args.precision}"
    lengths = {}
    for T in LENGTHS:
        print(f"T={T}", file=sys.stderr, flush=True)
        lengths[T] = child("bench.systems", system, "-B", args.B, "-T", T, "--steps", args.steps)
    content = {"B": args.B, "precision": args.precision, "lengths": lengths}
    name = f"lengths_{args.B}_{args.precision}"
    result, path = write_result("lengths", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

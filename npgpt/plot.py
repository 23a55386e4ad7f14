"""Plot the losses of training runs, read from their folders' log.jsonl, in one picture.

For each run, the thin line is every step's training loss, the bold one its running mean, and the
markers are the validation loss. Of steps logged twice, before and after a run was resumed, the last
log counts.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.errors import ArgumentError
from npgpt.training.curves import AXES, draw
from npgpt.wording import counted


@program
def main(argv=None, prog=None):
    """Plot the runs in one PNG file."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run of npgpt train")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.png", default="compare.png", help="default: compare.png"
    )
    parser.add_argument("--x", choices=AXES, default="step", help="default: step")
    parser.add_argument(
        "--smooth", type=int, metavar="N",
        help="the bold line is the mean of a step and N on either side; default: a 50th of all",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.smooth is not None and args.smooth < 0:
        raise ArgumentError(f"--smooth must be at least 0, not {args.smooth}")
    draw(args.runs, args.out, args.x, args.smooth)
    print(f"{args.out}: {counted(len(args.runs), 'run')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Find the first wrong tensor of a GPT-2, and why it is wrong.

EXPECTED is a trace by npgpt trace. MINE is that of your program: a .safetensors or .npz file, or a
folder of raw arrays. Each tensor is compared with what should come of those of MINE that it is made
of; only what rounding cannot explain is an error. The exit status is 0 if all is right, 1 if
something is wrong, 2 if they cannot be compared.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.files import atomic_write
from npgpt.porting.page import page
from npgpt.porting.precision import ROUNDOFFS
from npgpt.porting.report import json_text, make_report
from npgpt.porting.sources import Expected, Mine, read_map


@program
def main(argv=None, prog=None):
    """Compare the traces, print the report -> 0, or 1 where something is wrong."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("expected", metavar="EXPECTED", type=Path)
    parser.add_argument("mine", metavar="MINE", type=Path)
    parser.add_argument(
        "--map", type=Path, metavar="FILE.toml",
        help='your own names: lines such as qkv = "h.{block}.attn.c_attn"',
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=ROUNDOFFS,
        help="what MINE was computed in; default: the dtype of its tensors",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with pictures")
    args = parser.parse_args(argv)
    expected = Expected(args.expected)
    mine = Mine(args.mine, expected, read_map(args.map) if args.map else None)
    report = make_report(expected, mine, args.dtype)
    print(report)
    for path, text in ((args.json, json_text), (args.html, page)):
        if path is not None:
            with atomic_write(path) as file:
                file.write(text(report).encode())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

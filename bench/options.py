"""The options that the programs of bench share."""

import argparse
from pathlib import Path

from bench.results import RESULTS
from npgpt.cli import Parser
from npgpt.wording import install_extra

COUNTS = {
    "B": (("-B", "--B", "--batch-size"), "sequences in a batch"),
    "T": (("-T", "--T", "--seq-len"), "tokens in a sequence"),
    "prompt_tokens": (("--prompt-tokens",), "tokens of the prompt"),
    "tokens": (("--tokens",), "tokens to generate"),
    "rounds": (("--rounds",), "rounds, in each of which every system has its turn"),
    "steps": (("--steps",), "training steps in a round"),
    "runs": (("--runs",), "runs in a round"),
}


def make_parser(prog, description, **defaults):
    """A parser with --out and those of COUNTS that are named, with their defaults.

    A default that is None depends on --size (bench/sizes.py).
    """
    parser = Parser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        options, help = COUNTS[name]
        shown = "the size's" if default is None else default
        parser.add_argument(
            *options, dest=name, type=count, default=default, metavar="N",
            help=f"{help}; default: {shown}",
        )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FOLDER", help="default: bench/results"
    )
    return parser


def count(text):
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def require(parser, *packages):
    """End the program where one of the packages is missing."""
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            parser.error(f"{package} is missing: {install_extra('bench')} (see CONTRIBUTING.md)")

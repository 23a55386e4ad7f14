"""Write a GPT-2 to check a port against: a model, a debug state and losses, in llm.c's formats.

Weights come from a seed, and the results from the oracle: the textbook in float64, in arithmetic
that gives the same bytes on every machine. No PyTorch is needed. With --pairs it writes twelve
small pairs that between them catch the mistakes people make.
"""

import math
import sys
import time
from pathlib import Path

from npgpt.cli import Parser, add_batch_size, add_seq_len, program
from npgpt.core.config import GPT2Config
from npgpt.errors import ArgumentError
from npgpt.formats.llmc import DEFAULT_VERSION, VERSIONS
from npgpt.porting.reference import (
    PAIR_UPDATES,
    PAIRS,
    SIZES,
    make_pair,
    write_reference,
)
from npgpt.tracing.record import Updates
from npgpt.tracing.seeded import check_seed, random_batch, random_parameters

FIELDS = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")
SMALLEST = "tiny"  # the default size
UPDATES = Updates(steps=10)


@program
def main(argv=None, prog=None):
    """Write what the arguments ask for, and print the names of the files."""
    args = parse(argv, prog)
    if args.pairs:
        for name, pair in PAIRS.items():
            write(args, name, *make_pair(name, args.seed), PAIR_UPDATES, f": {pair.what}")
        return 0
    base = SIZES[args.size or SMALLEST]
    config = GPT2Config(*(getattr(args, name) or getattr(base, name) for name in FIELDS))
    T = args.T or min(64, config.block_size)
    if T > config.block_size:
        raise ArgumentError(f"-T must be at most the block_size, {config.block_size}, not {T}")
    batch = random_batch(args.seed, args.B or 4, T, config.vocab_size)
    given = {name: getattr(args, name) for name in UPDATES._fields}
    updates = UPDATES._replace(**{n: value for n, value in given.items() if value is not None})
    name = args.name or args.size or SMALLEST
    write(args, name, random_parameters(config, args.seed), *batch, updates)
    return 0


def write(args, name, params, x, y, updates, what=""):
    start = time.perf_counter()
    paths, losses = write_reference(args.out, name, params, x, y, updates, args.version)
    for path in paths:
        print(f"wrote {path}")
    c, (B, T) = params.config, x.shape
    seconds = time.perf_counter() - start
    print(
        f"  B {B}, T {T}, L {c.n_layer}, NH {c.n_head}, C {c.n_embd}, V {c.vocab_size}, loss"
        f" {losses[0]:.6f}{what} ({seconds:.1f} s)"
    )


def parse(argv, prog):
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--size", choices=SIZES, help=f"default: {SMALLEST}")
    for name in FIELDS:
        option = name.replace("_", "-")
        parser.add_argument(f"--{option}", type=int, metavar="N", help="default: the size's")
    parser.add_argument("--pairs", action="store_true", help="write the twelve small pairs")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    add_batch_size(parser, "rows of the batch; default: 4")
    add_seq_len(parser, "tokens in a row; default: 64, or the model's block_size")
    parser.add_argument(
        "--steps", type=int, metavar="N", help=f"losses to write; default: {UPDATES.steps}"
    )
    parser.add_argument("--lr", type=float, help=f"default: {UPDATES.lr:g}")
    parser.add_argument(
        "--weight-decay", type=float, metavar="W", help=f"default: {UPDATES.weight_decay:g}"
    )
    versions = "; ".join(f"{version}: {what}" for version, what in VERSIONS.items())
    parser.add_argument(
        "--version", type=int, choices=VERSIONS, default=DEFAULT_VERSION,
        help=f"of the model file; {versions}; default: {DEFAULT_VERSION}",
    )  # fmt: skip
    parser.add_argument("--name", help="of the files; default: the size")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder; default: this one")
    args = parser.parse_args(argv)
    for name in ("size", *FIELDS, "B", "T", *UPDATES._fields, "name"):
        value = getattr(args, name)
        if value is None:
            continue
        option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        if args.pairs:
            raise ArgumentError(f"{option} does not go with --pairs, each of which has its own")
        if name in ("lr", "weight_decay"):
            if not 0 <= value < math.inf:
                raise ArgumentError(f"{option} must be a finite number of at least 0, not {value}")
        elif isinstance(value, int) and value < 1:
            raise ArgumentError(f"{option} must be at least 1, not {value}")
    if args.name is not None and Path(args.name).name != args.name:
        raise ArgumentError(f"--name must be a name without folders, not {args.name}")
    check_seed(args.seed)
    return args


if __name__ == "__main__":
    sys.exit(main())

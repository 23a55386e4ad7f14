"""Make token files of sums like `12+07=019`, one per document, for a GPT that learns to add.

The sums of two numbers of up to --digits digits, zero-padded, in random order: all of them, or
--count if there are more. Neither a+b nor b+a of a sum for validation is in training.
"""

import random
import sys

from npgpt.cli import Parser, program
from npgpt.data import prepare
from npgpt.data.addition import CHARACTERS, sum_text
from npgpt.data.tokenizer import CharsTokenizer
from npgpt.errors import ArgumentError

COUNT = 50_000
MOST = 10_000_000
MOST_DIGITS = 9
SETTINGS = (  # of a model that learns sums of two digits
    "--order documents --n-layer 2 --n-head 4 --n-embd 64 -B 128 --steps 1500 --lr 3e-3"
    " --warmup 50 --val-every 250"
)


def make_sums(digits, count, seed):
    """Draw `count` distinct pairs of numbers of up to `digits` digits: [(a, b), ...]."""
    numbers = 10**digits
    drawn = random.Random(seed).sample(range(numbers**2), count)
    return [divmod(pair, numbers) for pair in drawn]


def split(sums, fraction):
    """Sums -> those for `val` and `train`; a+b and b+a stay together."""
    pairs = list(dict.fromkeys((min(sum_), max(sum_)) for sum_ in sums))
    held_out = set(pairs[: prepare.validation_count(len(pairs), fraction)])
    splits = {"val": [], "train": []}
    for a, b in sums:
        splits["val" if (min(a, b), max(a, b)) in held_out else "train"].append((a, b))
    return splits


@program
def main(argv=None, prog=None):
    """Write addition_val.bin and addition_train.bin."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--digits", type=int, metavar="N", default=2, help="default: 2")
    parser.add_argument(
        "--count", type=int, metavar="N", help=f"number of sums; default: all, up to {COUNT:,}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random order; default: 0")
    prepare.add_val_fraction(parser)
    prepare.add_out(parser)
    args = parser.parse_args(argv)

    if not 1 <= args.digits <= MOST_DIGITS:
        raise ArgumentError(f"--digits must be from 1 to {MOST_DIGITS}, not {args.digits}")
    if args.seed < 0:
        raise ArgumentError(f"--seed must be at least 0, not {args.seed}")
    there_are = 100**args.digits
    count = min(there_are, COUNT) if args.count is None else args.count
    if (
        not 3 <= count <= min(there_are, MOST)
    ):  # of 2, one could be the other with its numbers swapped
        raise ArgumentError(f"--count must be from 3 to {min(there_are, MOST)}, not {count}")
    tokenizer = CharsTokenizer(CHARACTERS)
    splits = {
        name: tokenizer.encode_pieces([(sum_text(a, b, args.digits), True) for a, b in sums])
        for name, sums in split(make_sums(args.digits, count, args.seed), args.val_fraction).items()
    }
    counts = prepare.write_splits(args.out, "addition", splits, tokenizer)
    T = 1 + len(sum_text(0, 0, args.digits))  # end-of-text and a sum
    prepare.print_next(args.out, "addition", counts, T, SETTINGS)
    return 0


if __name__ == "__main__":
    sys.exit(main())

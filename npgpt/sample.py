"""Generate text, with or without a prompt. As in training, end-of-text comes first.

One sample is printed as it is generated, prompt included; several are generated as a batch and
printed at the end.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.data.tokenizer import TOKENIZERS, get_tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import read_text
from npgpt.model.backend import BACKENDS
from npgpt.model.gpt2 import GPT2
from npgpt.model.quantization import WEIGHT_FORMAT_HELP, WEIGHT_FORMATS
from npgpt.model.text import encode_prompt, text_pieces


def print_samples(pieces, samples):
    """Print one sample as it is generated, or several one after the other."""
    if samples > 1:
        for i, parts in enumerate(zip(*pieces, strict=True), start=1):
            print(f"--- sample {i} of {samples} ---", "".join(parts), sep="\n")
        return
    print(*next(pieces), end="", flush=True)
    try:
        for (piece,) in pieces:
            print(piece, end="", flush=True)
    finally:
        print()


def read_prompts():
    """Yield the lines of standard input that are not empty."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise ArgumentError("standard input must be UTF-8 text") from error
        if line:
            yield line


def make_parser(prog):
    parser = Parser(prog=prog, description=__doc__)
    model = "a published name (gpt2, gpt2-medium, ...), a model file or folder, or a run's folder"
    parser.add_argument("--model", required=True, metavar="WHERE", help=model)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="text to continue")
    prompt.add_argument("--prompt-file", type=Path, metavar="FILE", help="a file with that text")
    lines = "continue each line of standard input"
    prompt.add_argument("--interactive", action="store_true", help=lines)
    likely = parser.add_mutually_exclusive_group()
    likely.add_argument("--greedy", action="store_true", help="always take the likeliest token")
    stop = "stop before this text, such as '<|endoftext|>'"
    nucleus = "nucleus sampling: draw from the fewest tokens whose probabilities reach P"
    for parent, options, kind, default, metavar, text in (
        (parser, "--tokens --max-new-tokens", int, 100, "N", "tokens to generate; default: 100"),
        (parser, "--samples", int, 1, "N", "samples per prompt; default: 1"),
        (likely, "--temperature", float, 1.0, "X", "softmax temperature; default: 1"),
        (parser, "--top-k", int, None, "K", "draw from the K likeliest tokens"),
        (parser, "--top-p", float, None, "P", nucleus),
        (parser, "--repetition-penalty", float, 1.0, "X", "above 1: repeat less; default: 1"),
        (parser, "--stop", str, None, "TEXT", stop),
        (parser, "--seed", int, None, "N", "random seed; default: a new one each time"),
    ):
        parent.add_argument(
            *options.split(), type=kind, default=default, metavar=metavar, help=text
        )
    parser.add_argument("--tokenizer", choices=TOKENIZERS, help="instead of the model's own")
    parser.add_argument("--backend", choices=BACKENDS, default="numba", help="default: numba")
    parser.add_argument(
        "--weight-format", choices=WEIGHT_FORMATS, default="fp32", help=WEIGHT_FORMAT_HELP
    )
    return parser


@program
def main(argv=None, prog=None):
    """Print the continuation of the prompt, or of each line of standard input."""
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    for option in ("tokens", "samples"):
        if getattr(args, option) < 1:
            parser.error(f"--{option} must be at least 1, not {getattr(args, option)}")
    for option in ("prompt", "stop"):
        if getattr(args, option) == "":
            parser.error(f"--{option} must not be empty: leave it out")
    prompts = read_prompts() if args.interactive else [args.prompt or ""]
    if args.prompt_file:
        prompts = [read_text(args.prompt_file)]
        if not prompts[0]:
            raise FileError(f"{args.prompt_file}: is empty")
    model = GPT2.from_pretrained(args.model, backend=args.backend, weight_format=args.weight_format)
    if args.tokenizer:
        model.tokenizer = get_tokenizer(args.tokenizer)
    if model.tokenizer is None:
        raise ArgumentError(
            f"{args.model}: no tokenizer is known for this model: pass one with --tokenizer"
            f" ({', '.join(TOKENIZERS)})"
        )
    options = {
        "temperature": 0 if args.greedy else args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "repetition_penalty": args.repetition_penalty,
        "seed": args.seed,
    }
    for prompt in prompts:
        try:
            tokens = encode_prompt(prompt, model)
        except ArgumentError as error:
            if not args.interactive:
                raise
            print(f"error: {error}", file=sys.stderr)  # the next line may be better
            continue
        pieces = text_pieces(model, prompt, tokens, args.samples, args.tokens, args.stop, options)
        print_samples(pieces, args.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())

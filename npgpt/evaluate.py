"""Evaluate a model: its loss and perplexity, its accuracy on HellaSwag, or its exact answers.

Each token but the first is predicted once, from those before it in its window of T tokens.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np

from npgpt.answers import count_exact
from npgpt.cli import Parser, program
from npgpt.dataset import open_tokens
from npgpt.errors import ArgumentError, FileError
from npgpt.gpt2 import BACKENDS, GPT2
from npgpt.hellaswag import choose, is_cut, read_hellaswag
from npgpt.layers.crossentropy import IGNORED
from npgpt.parameters import MATRICES
from npgpt.precision import SAMPLING
from npgpt.prepare import read_text
from npgpt.pretrained import load_model
from npgpt.threads import threads
from npgpt.tokenizer import TOKENIZERS, read_tokenizer, tokenizer_from


def mean_loss(model, tokens, B, T, batches=None):
    """The mean loss in nats of all tokens but the first, in windows of T, B at a time, as a float.

    tokens are Tokens or an array (N,). The last window may be shorter, so that each token counts
    once, whatever B is. With batches, only the first so many batches are computed.
    """
    from tqdm import tqdm

    N = len(tokens) - 1  # targets
    if N < 1:
        raise ArgumentError(f"tokens must be at least 2, to predict one, not {len(tokens)}")
    starts = range(0, N, B * T)[:batches]
    total, counted = 0.0, 0
    for start in tqdm(starts, desc="loss", unit="batch", leave=False, disable=None):
        count = min(B * T, N - start)
        if isinstance(tokens, np.ndarray):
            window = tokens[start : start + count + 1]  # (count + 1,)
        else:
            window = tokens.read(start, count + 1)  # (count + 1,)
        rows = math.ceil(count / T)
        x = np.zeros(rows * T, np.int64)
        y = np.full(rows * T, IGNORED, np.int64)  # what follows the last token does not count
        x[:count], y[:count] = window[:-1], window[1:]
        total += count * model.loss(x.reshape(rows, T), y.reshape(rows, T))
        counted += count
    return total / counted


def count_correct(model, examples):
    """The number of HellaSwag's examples of which the model takes the right completion."""
    from tqdm import tqdm

    correct = 0
    bar = tqdm(examples, desc="hellaswag", unit="example", leave=False, disable=None)
    for i, example in enumerate(bar, 1):
        correct += choose(model, example) == example.label
        bar.set_postfix_str(f"accuracy {correct / i:.4f}", refresh=False)
    return correct


def round_to_int8(model):
    """Make each matrix what it is where sampling in int8 reads it; wte for the encoder as well."""
    from npgpt.kernels.int8 import to_int8

    for name in MATRICES:
        if name != "wpe":
            w = getattr(model.params, name)
            with threads():
                values, scale = to_int8(w)
            np.multiply(values, scale[..., None], out=w)


@np.errstate(over="ignore", invalid="ignore")  # of a model that has diverged, the loss is nan
@program
def main(argv=None, prog=None):
    """Print what the model that the arguments name comes to."""
    args = parse(argv, prog)
    params, tokenizer = load_model(args.model)
    model = GPT2(params.config, params=params, backend=args.backend, precision=args.precision)
    if args.precision == "int8":
        round_to_int8(model)
    if args.tokenizer is not None:
        given = {"name": args.tokenizer}
        check_tokenizer("--tokenizer", given, args.model, tokenizer)
        tokenizer = given
    if args.hellaswag is not None:
        return evaluate_hellaswag(model, tokenizer, args)
    if args.answers is not None:
        return evaluate_answers(model, tokenizer, args)
    return evaluate_tokens(model, tokenizer, args)


def parse(argv, prog):
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--model", required=True, metavar="WHERE",
        help="a run's folder, a model file or folder, or a published name, such as gpt2",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--tokens", nargs="+", metavar="PATTERN", help="token files, taken together as one"
    )
    source.add_argument("--text", type=Path, metavar="FILE", help="a text, UTF-8")
    source.add_argument(
        "--hellaswag", type=Path, metavar="FILE", help="HellaSwag in llm.c's eval format"
    )
    source.add_argument(
        "--answers", nargs="+", metavar="PATTERN",
        help="token files: how many documents does it finish exactly, from --after on?",
    )  # fmt: skip
    parser.add_argument(
        "--after", metavar="TEXT", help="one token, which answers come after; default: ="
    )
    parser.add_argument("-B", type=int, metavar="N", help="windows at a time; default: 4")
    parser.add_argument(
        "-T", type=int, metavar="N", help="tokens a window; default: the model's block_size"
    )
    parser.add_argument(
        "--batches", type=int, metavar="N",
        help="the first N batches alone, or HellaSwag's examples",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", choices=TOKENIZERS, help="the model's, where it does not come with one"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="numba", help="default: numba")
    parser.add_argument(
        "--precision", choices=SAMPLING, default="fp32",
        help="of the factors of matrix products, or int8 of weights alone; default: fp32",
    )  # fmt: skip
    args = parser.parse_args(argv)
    for name, value in (("-B", args.B), ("-T", args.T), ("--batches", args.batches)):
        if value is not None and value < 1:
            raise ArgumentError(f"{name} must be at least 1, not {value}")
        if value is not None and args.hellaswag is not None and name != "--batches":
            raise ArgumentError(f"{name} does not go with --hellaswag, which takes row by row")
        if value is not None and args.answers is not None and name != "-B":
            raise ArgumentError(f"{name} does not go with --answers, which takes whole documents")
    if args.after is not None and args.answers is None:
        raise ArgumentError("--after goes with --answers alone")
    return args


def check_tokenizer(name, its, model, models):
    """Refuse what has another tokenizer than the model, where both descriptions are known."""
    if its is not None and models is not None and its != models:
        other = " of other characters" if its["name"] == models["name"] else ""
        raise ArgumentError(
            f"{name}: the tokenizer is {its['name']}, but {model} has {models['name']}{other}"
        )


def load_tokens(args, tokenizer, vocab_size):
    """What the arguments name -> Tokens, or of --text an array (N,); all below vocab_size."""
    if args.text is not None:
        if tokenizer is None:
            raise ArgumentError(f"{args.model} comes with no tokenizer: --tokenizer must name it")
        tokens = np.array(tokenizer_from(tokenizer).encode(read_text(args.text)), np.int64)  # (N,)
        check_highest(args.text, tokens.max(initial=0), vocab_size)
    else:
        tokens = open_tokens(args.tokens or args.answers)
        check_tokenizer(tokens.paths[0], tokens.tokenizer, args.model, tokenizer)
        for path in tokens.paths:
            check_highest(path, open_tokens(path).highest(), vocab_size)
    return tokens


def check_highest(path, highest, vocab_size):
    """Refuse tokens that the model does not have."""
    if highest >= vocab_size:
        raise FileError(
            f"{path}: tokens up to {highest}, but the model's run from 0 to {vocab_size - 1}"
        )


def evaluate_tokens(model, tokenizer, args):
    """Print the model's loss on token files or on a text -> exit status."""
    tokens = load_tokens(args, tokenizer, model.config.vocab_size)
    B, T = args.B or 4, args.T or model.config.block_size
    if T > model.config.block_size:
        raise ArgumentError(f"-T can be {model.config.block_size}, the block_size, not {T}")
    start = time.perf_counter()
    loss = mean_loss(model, tokens, B, T, args.batches)
    seconds = time.perf_counter() - start
    count = min(len(tokens) - 1, (args.batches or sys.maxsize) * B * T)
    print(f"loss        {loss:.6f}")
    print(f"perplexity  {np.exp(loss):.6g}")
    print(f"tokens      {count:,}")
    print(f"tokens/s    {count / seconds:,.0f}")
    return 0


def evaluate_answers(model, tokenizer, args):
    """Print how many answers the model gets right -> exit status."""
    tokens = load_tokens(args, tokenizer, model.config.vocab_size)
    tokenizer = tokenizer or tokens.tokenizer
    if tokenizer is None:
        raise ArgumentError(f"{args.model} comes with no tokenizer: --tokenizer must name it")
    after = "=" if args.after is None else args.after
    tokenizer = tokenizer_from(tokenizer)
    ids = tokenizer.encode(after)
    if len(ids) != 1:
        raise ArgumentError(f"--after must be one token, but {after!r} is {len(ids)}")
    correct, count = count_exact(model, tokens, ids[0], args.B or 64, tokenizer.eot)
    print(f"exact answers  {correct / count:.4f}")
    print(f"documents      {count:,}")
    return 0


def evaluate_hellaswag(model, tokenizer, args):
    """Print the model's accuracy on HellaSwag -> exit status."""
    path, block_size = args.hellaswag, model.config.block_size
    check_tokenizer(path, read_tokenizer(path), args.model, tokenizer)
    examples = read_hellaswag(path, model.config.vocab_size)[: args.batches]
    correct = count_correct(model, examples)
    print(f"accuracy  {correct / len(examples):.4f}")
    print(f"examples  {len(examples):,}")
    cut = sum(is_cut(example, block_size) for example in examples)
    if cut:
        print(f"cut       {cut:,}, which do not fit into the model's block_size of {block_size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

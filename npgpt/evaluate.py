"""Evaluate a model: loss and perplexity, accuracy on HellaSwag, or exact match on answers.

Each token but the first is predicted once, from those before it in its window of T tokens.
"""

import sys

import numpy as np

from npgpt.cli import Parser, add_batch_size, add_seq_len, program
from npgpt.core.precision import PRECISION_HELP, PRECISIONS
from npgpt.data.descriptions import check_same_tokenizer
from npgpt.data.tokenizer import TOKENIZERS
from npgpt.errors import ArgumentError
from npgpt.evaluation.registry import ANSWER_SEPARATOR, EVALUATIONS, Subject
from npgpt.formats.models import load_model
from npgpt.model.backend import BACKENDS
from npgpt.model.gpt2 import GPT2, checked_factory
from npgpt.model.quantization import WEIGHT_FORMAT_HELP, WEIGHT_FORMATS
from npgpt.parallel.cores import divide_cores
from npgpt.parallel.start import communicator, run_as_rank
from npgpt.parallel.supervisor import run_supervised
from npgpt.parallel.weights import read_at_rank_0

OPTIONS = {"B": "--batch-size", "T": "--seq-len", "batches": "--batches", "after": "--after"}


def main(argv=None, prog=None):
    """Evaluate the model and print the result; ranks that mpiexec has started share the work."""
    status = run_supervised()
    return run_as_rank(as_rank, argv, prog) if status is None else status


@program
@np.errstate(over="ignore", invalid="ignore")  # the loss of a diverged model is nan
def as_rank(argv, prog):
    """Evaluate, alone or as one of several ranks."""
    args = parse(argv, prog)
    with communicator() as comm:
        divide_cores(comm)
        evaluate(args, comm)
    return 0


def evaluate(args, comm):
    """Evaluate by the arguments of parse."""
    options = {name: getattr(args, name) for name in ("backend", "precision", "weight_format")}
    make_params = checked_factory(**options)
    if comm.size == 1:
        params, tokenizer = load_model(args.model, make_params)
    else:
        params, tokenizer = read_at_rank_0(comm, load_model, args.model)
    model = GPT2(params.config, params=params, **options)
    del params  # a quantized model has its own
    if args.tokenizer is not None:
        given = {"name": args.tokenizer}
        check_same_tokenizer("--tokenizer", given, args.model, tokenizer)
        tokenizer = given
    evaluation = EVALUATIONS[args.evaluation]
    args.B = args.B or evaluation.B
    evaluation.run(Subject(args.model, model, tokenizer, comm), args.data, args)


def parse(argv, prog):
    """Parse the arguments; adds `evaluation`, the name of the chosen one, and `data`, its value."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--model", required=True, metavar="WHERE",
        help="a run's folder, a model file or folder, or a published name, such as gpt2",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    for name, evaluation in EVALUATIONS.items():
        source.add_argument(
            f"--{name}", metavar=evaluation.metavar, nargs="+" if evaluation.many else None,
            help=evaluation.help,
        )  # fmt: skip
    parser.add_argument(
        "--after", metavar="TEXT",
        help=f"the token between question and answer; default: {ANSWER_SEPARATOR}",
    )  # fmt: skip
    defaults = (f"{e.B} with --{name}" for name, e in EVALUATIONS.items() if "B" in e.takes)
    add_batch_size(parser, f"rows per batch; default: {', '.join(defaults)}")
    add_seq_len(parser, "tokens per window; default: the model's block_size")
    parser.add_argument(
        "--batches", type=int, metavar="N",
        help="evaluate only the first N batches (of --hellaswag: examples)",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", choices=TOKENIZERS, help="tokenizer of a model that has none beside it"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="numba", help="default: numba")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=PRECISION_HELP)
    parser.add_argument(
        "--weight-format", choices=WEIGHT_FORMATS, default="fp32", help=WEIGHT_FORMAT_HELP
    )
    args = parser.parse_args(argv)
    args.evaluation = next(name for name in EVALUATIONS if getattr(args, name) is not None)
    args.data = getattr(args, args.evaluation)
    for name, option in OPTIONS.items():
        value = getattr(args, name)
        if value is not None and name not in EVALUATIONS[args.evaluation].takes:
            raise ArgumentError(f"{option} does not go with --{args.evaluation}")
        if isinstance(value, int) and value < 1:
            raise ArgumentError(f"{option} must be at least 1, not {value}")
    return args


if __name__ == "__main__":
    sys.exit(main())

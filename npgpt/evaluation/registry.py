"""The registry of `npgpt eval`'s evaluations, each an option that takes data.

To add one, write a function that prints a Subject's result, and add it to EVALUATIONS.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npgpt.data.descriptions import check_same_tokenizer, read_tokenizer, tokenizer_from_description
from npgpt.data.token_files import open_tokens
from npgpt.errors import ArgumentError, FileError
from npgpt.evaluation.answers import count_exact
from npgpt.evaluation.hellaswag import count_correct, is_cut, read_hellaswag
from npgpt.evaluation.loss import bits_per_byte, count_bytes, mean_loss, token_bytes
from npgpt.files import read_text
from npgpt.model.gpt2 import GPT2
from npgpt.parallel.communicator import ALONE, Alone

ANSWER_SEPARATOR = "="


@dataclass
class Subject:
    """A model to evaluate: its name, the GPT2, its tokenizer's description or None.

    The ranks of comm share the work.
    """

    name: str
    model: GPT2
    tokenizer_description: dict[str, Any] | None
    comm: Alone = ALONE

    def check_tokens(self, path, highest):
        """Raise FileError for a token outside the model's vocabulary."""
        V = self.model.config.vocab_size
        if highest >= V:
            raise FileError(f"{path}: token {highest} is outside the model's vocabulary of {V}")

    def known_tokenizer(self, beside=None):
        """Its Tokenizer, else the one `beside` describes; raises ArgumentError without either."""
        description = self.tokenizer_description or beside
        if description is None:
            raise ArgumentError(f"{self.name} has no tokenizer: pass one with --tokenizer")
        return tokenizer_from_description(description)


class Evaluation(NamedTuple):
    """One evaluation: `run(subject, data, options)` prints its result.

    data is a path or, with `many`, a list of patterns; options is the namespace of npgpt eval.
    `takes` names those of B, T, batches and after that apply; B is the default of options.B.
    """

    help: str
    metavar: str
    many: bool
    takes: tuple[str, ...]
    run: Callable[[Subject, Any, Any], None]
    B: int = 4


def open_data(subject, patterns):
    """Open token files, checked against the model's vocabulary and tokenizer -> Tokens."""
    tokens = open_tokens(patterns)
    check_same_tokenizer(
        tokens.paths[0], tokens.tokenizer_description, subject.name, subject.tokenizer_description
    )
    for path, highest in tokens.max_token_by_file():
        subject.check_tokens(path, highest)
    return tokens


def evaluate_tokens(subject, patterns, options):
    """Print the loss on token files."""
    tokens = open_data(subject, patterns)
    description = subject.tokenizer_description or tokens.tokenizer_description
    print_loss(subject, tokens, description, options)


def evaluate_text(subject, path, options):
    """Print the loss on a text."""
    tokens = np.array(subject.known_tokenizer().encode(read_text(path)), np.int64)  # (N,)
    subject.check_tokens(path, tokens.max(initial=0))
    print_loss(subject, tokens, subject.tokenizer_description, options)


def print_loss(subject, tokens, description, options):
    """Print the model's loss on Tokens or an array (N,), by the tokenizer's description or None."""
    model = subject.model
    B, T = options.B, options.T or model.config.block_size
    if T > model.config.block_size:
        raise ArgumentError(
            f"-T must be at most the block_size of {model.config.block_size}, not {T}"
        )
    start = time.perf_counter()
    loss = mean_loss(model, tokens, B, T, options.batches, subject.comm)
    seconds = time.perf_counter() - start
    count = min(len(tokens) - 1, (options.batches or sys.maxsize) * B * T)
    print(f"loss        {loss:.6f}")
    print(f"perplexity  {np.exp(loss):.6g}")
    print(f"tokens      {count:,}")
    print(f"tokens/s    {count / seconds:,.0f}")
    print(f"bits/byte   {describe_bits_per_byte(model, loss, tokens, count, description)}")


def describe_bits_per_byte(model, loss, tokens, count, description):
    """The bits per byte of the first `count` targets, as text, or why there are none."""
    if description is None:
        return "unknown: no tokenizer says what text the tokens are (--tokenizer)"
    try:
        lengths = token_bytes(tokenizer_from_description(description), model.config.vocab_size)
    except FileError as error:  # GPT-2's files, which can be neither found nor downloaded
        return f"unknown: {error}"
    n_bytes = count_bytes(tokens, 1, count + 1, lengths)
    return f"{bits_per_byte(loss, count, n_bytes):.6f}" if n_bytes else "none: no text"


def evaluate_answers(subject, patterns, options):
    """Print the fraction of documents that the model completes exactly."""
    tokens = open_data(subject, patterns)
    tokenizer = subject.known_tokenizer(tokens.tokenizer_description)
    after = ANSWER_SEPARATOR if options.after is None else options.after
    try:
        ids = tokenizer.encode(after)
    except ArgumentError as error:
        raise ArgumentError(f"--after {after!r}: {error}") from error
    if len(ids) != 1:
        raise ArgumentError(
            f"--after must encode to one token, but {after!r} encodes to {len(ids)}"
        )
    correct, count = count_exact(
        subject.model, tokens, ids[0], options.B, tokenizer.eot, subject.comm
    )
    print(f"exact answers  {correct / count:.4f}")
    print(f"documents      {count:,}")


def evaluate_hellaswag(subject, path, options):
    """Print the accuracy on HellaSwag."""
    config = subject.model.config
    check_same_tokenizer(path, read_tokenizer(path), subject.name, subject.tokenizer_description)
    examples = read_hellaswag(path, config.vocab_size)[: options.batches]
    correct = count_correct(subject.model, examples, subject.comm)
    print(f"accuracy  {correct / len(examples):.4f}")
    print(f"examples  {len(examples):,}")
    cut = sum(is_cut(example, config.block_size) for example in examples)
    if cut:
        print(f"cut       {cut:,}, which do not fit into the block_size of {config.block_size}")


EVALUATIONS = {
    "tokens": Evaluation(
        "the loss on token files, taken together as one",
        "PATTERN", True, ("B", "T", "batches"), evaluate_tokens,
    ),
    "text": Evaluation(
        "the loss on a text, UTF-8", "FILE", False, ("B", "T", "batches"), evaluate_text
    ),
    "hellaswag": Evaluation(
        "the accuracy on HellaSwag by mean loss per token (acc_norm), in llm.c's eval format",
        "FILE", False, ("batches",), evaluate_hellaswag,
    ),
    "answers": Evaluation(
        "exact match: documents of token files completed exactly after --after",
        "PATTERN", True, ("B", "after"), evaluate_answers, B=64,
    ),
}  # fmt: skip

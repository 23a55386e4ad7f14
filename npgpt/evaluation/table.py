"""The evaluations that `npgpt eval` offers: each an option that names data, and what is measured.

To add one is an entry here: a function that prints what a Subject comes to on the data.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import check_same_tokenizer, read_tokenizer, tokenizer_from
from npgpt.errors import ArgumentError, FileError
from npgpt.evaluation.answers import count_exact
from npgpt.evaluation.hellaswag import count_correct, is_cut, read_hellaswag
from npgpt.evaluation.loss import mean_loss
from npgpt.files import read_text
from npgpt.model.gpt2 import GPT2

ANSWERS_AFTER = "="


@dataclass
class Subject:
    """A model that is to be evaluated: its name, the GPT2, its tokenizer's description or None."""

    name: str
    model: GPT2
    tokenizer: dict[str, Any] | None

    def check_tokens(self, path, highest):
        """Refuse tokens that the model does not have."""
        V = self.model.config.vocab_size
        if highest >= V:
            raise FileError(
                f"{path}: tokens up to {highest}, but the model's run from 0 to {V - 1}"
            )

    def known_tokenizer(self, beside=None):
        """Its Tokenizer, else that of the description beside the data; ArgumentError without."""
        description = self.tokenizer or beside
        if description is None:
            raise ArgumentError(f"{self.name} comes with no tokenizer: --tokenizer must name it")
        return tokenizer_from(description)


class Evaluation(NamedTuple):
    """One evaluation: `run(subject, data, options)` prints its result.

    data is what its option named, a path or with `many` a list of patterns. options are those of
    npgpt eval; `takes` names the ones that it heeds, of B, T, batches and after.
    """

    help: str
    metavar: str
    many: bool
    takes: tuple[str, ...]
    run: Callable[[Subject, Any, Any], None]


def open_data(subject, patterns):
    """Token files -> Tokens that the model has, and that go with its tokenizer."""
    tokens = open_tokens(patterns)
    check_same_tokenizer(tokens.paths[0], tokens.tokenizer, subject.name, subject.tokenizer)
    for path, highest in tokens.highest_by_file():
        subject.check_tokens(path, highest)
    return tokens


def evaluate_tokens(subject, patterns, options):
    """Print the loss on token files."""
    print_loss(subject.model, open_data(subject, patterns), options)


def evaluate_text(subject, path, options):
    """Print the loss on a text."""
    tokens = np.array(subject.known_tokenizer().encode(read_text(path)), np.int64)  # (N,)
    subject.check_tokens(path, tokens.max(initial=0))
    print_loss(subject.model, tokens, options)


def print_loss(model, tokens, options):
    """Print the model's loss on Tokens or an array (N,)."""
    B, T = options.B or 4, options.T or model.config.block_size
    if T > model.config.block_size:
        raise ArgumentError(f"-T can be {model.config.block_size}, the block_size, not {T}")
    start = time.perf_counter()
    loss = mean_loss(model, tokens, B, T, options.batches)
    seconds = time.perf_counter() - start
    count = min(len(tokens) - 1, (options.batches or sys.maxsize) * B * T)
    print(f"loss        {loss:.6f}")
    print(f"perplexity  {np.exp(loss):.6g}")
    print(f"tokens      {count:,}")
    print(f"tokens/s    {count / seconds:,.0f}")


def evaluate_answers(subject, patterns, options):
    """Print how many documents the model finishes exactly."""
    tokens = open_data(subject, patterns)
    tokenizer = subject.known_tokenizer(tokens.tokenizer)
    after = ANSWERS_AFTER if options.after is None else options.after
    ids = tokenizer.encode(after)
    if len(ids) != 1:
        raise ArgumentError(f"--after must be one token, but {after!r} is {len(ids)}")
    correct, count = count_exact(subject.model, tokens, ids[0], options.B or 64, tokenizer.eot)
    print(f"exact answers  {correct / count:.4f}")
    print(f"documents      {count:,}")


def evaluate_hellaswag(subject, path, options):
    """Print the accuracy on HellaSwag."""
    config = subject.model.config
    check_same_tokenizer(path, read_tokenizer(path), subject.name, subject.tokenizer)
    examples = read_hellaswag(path, config.vocab_size)[: options.batches]
    correct = count_correct(subject.model, examples)
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
        "the accuracy on HellaSwag, in llm.c's eval format",
        "FILE", False, ("batches",), evaluate_hellaswag,
    ),
    "answers": Evaluation(
        "how many documents of token files it finishes exactly, from --after on",
        "PATTERN", True, ("B", "after"), evaluate_answers,
    ),
}  # fmt: skip

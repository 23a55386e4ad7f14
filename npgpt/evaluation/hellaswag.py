"""HellaSwag in llm.c's eval format: examples with four completions, and which one a model chooses.

The magic is 20240522; header words 2 and 3 are the number of examples and the bytes of the longest
one. Then example after example, as uint16: 65535, its bytes, its index, its label, the number of
completions, the context's length and tokens, then each completion's. Everything is little-endian.
"""

from dataclasses import dataclass

import numpy as np

from npgpt.errors import ArgumentError, FileError
from npgpt.files import HEADER_BYTES, open_for_reading, read_header, read_into
from npgpt.layers.crossentropy import IGNORED
from npgpt.parallel.communicator import ALONE
from npgpt.wording import counted

MAGIC = 20240522
START = 65535
COMPLETIONS = 4
FEWEST_WORDS = 5 + 2 * (1 + COMPLETIONS)  # with one token in the context and each completion


@dataclass
class Example:
    """A context (n,) and four completions (m,), int64 tokens; label is the right one's index."""

    context: np.ndarray
    completions: list
    label: int


def read_hellaswag(path, vocab_size):
    """Read a file of examples -> a list of Example; their tokens must be below vocab_size.

    Raises FileError where the file is another one, is damaged or has other tokens. All of it is
    checked; nothing of its size is allocated before its header has been.
    """
    with open_for_reading(path) as (file, size):
        header = read_header(file, size, path, "HellaSwag file", MAGIC, n_used=4)
        _, version, count, longest = header
        if version != 1:
            raise FileError(f"{path}: a HellaSwag file of version {version}, but 1 is known")
        if count < 1 or not 2 * FEWEST_WORDS <= longest < START:
            raise FileError(
                f"{path}: the header is damaged: {counted(count, 'example')}, the longest of"
                f" {counted(longest, 'byte')}"
            )
        fewest, most = HEADER_BYTES + 2 * FEWEST_WORDS * count, HEADER_BYTES + longest * count
        if not fewest <= size <= most or size % 2:
            raise FileError(
                f"{path}: damaged ({counted(size, 'byte')}, but {counted(count, 'example')} of up"
                f" to {longest:,} take an even number from {fewest:,} to {most:,})"
            )
        words = np.empty((size - HEADER_BYTES) // 2, "<u2")
        read_into(file, words, path)
    examples, start, longest_read = [], 0, 0
    for i in range(count):
        where = f"{path}: example {i} of {count}"
        stop = start + example_words(words[start : start + 2], where)
        if stop > len(words):
            raise FileError(f"{where}: truncated (by {counted(2 * (stop - len(words)), 'byte')})")
        examples.append(parse_example(words[start:stop].astype(np.int64), i, vocab_size, where))
        longest_read = max(longest_read, 2 * (stop - start))
        start = stop
    if start != len(words):
        raise FileError(
            f"{path}: too long ({counted(2 * (len(words) - start), 'byte')} after the last example)"
        )
    if longest_read != longest:
        raise FileError(
            f"{path}: damaged: the longest example has {counted(longest_read, 'byte')}, not the"
            f" header's {longest:,}"
        )
    return examples


def example_words(words, where):
    """The number of words of an example, by its first two."""
    if len(words) < 2:
        raise FileError(f"{where}: truncated (the file ends before it)")
    start, size = words.tolist()
    if start != START:
        raise FileError(f"{where}: must begin with {START}, not {start}")
    if size < 2 * FEWEST_WORDS or size % 2:
        raise FileError(
            f"{where}: its bytes must be an even number of at least {2 * FEWEST_WORDS}, not {size}"
        )
    return size // 2


def parse_example(words, index, vocab_size, where):
    """All words (n,) of an example, int64 -> Example."""
    _, _, its_index, label, count = words[:5].tolist()
    if its_index != index:
        raise FileError(f"{where}: its index must be {index}, not {its_index}")
    if count != COMPLETIONS:
        raise FileError(f"{where}: must have {COMPLETIONS} completions, not {count}")
    if label >= count:
        raise FileError(f"{where}: its label must be from 0 to {count - 1}, not {label}")
    parts, at = [], 5
    for i in range(1 + count):
        length = int(words[at]) if at < len(words) else 0
        left = len(words) - at - 1
        if not 1 <= length <= left:
            name = f"completion {i - 1}" if i else "the context"
            raise FileError(
                f"{where}: {name} must have at least one token and has {length},"
                f" with {max(left, 0)} left in the example"
            )
        parts.append(words[at + 1 : at + 1 + length])
        at += 1 + length
    if at != len(words):
        raise FileError(f"{where}: its bytes must be {2 * at}, not {2 * len(words)}")
    highest = max(int(part.max()) for part in parts)
    if highest >= vocab_size:
        raise FileError(
            f"{where}: token {highest} is outside the model's vocabulary of {vocab_size}"
        )
    return Example(parts[0], parts[1:], label)


def count_correct(model, examples, comm=ALONE):
    """The number of HellaSwag examples where the model chooses the right completion.

    The ranks of comm share them, and each has the result.
    """
    from tqdm import tqdm

    correct, own = 0, examples[comm.rank :: comm.size]
    disable = True if comm.rank else None
    bar = tqdm(own, desc="hellaswag", unit="example", leave=False, disable=disable)
    for i, example in enumerate(bar, 1):
        correct += choose(model, example) == example.label
        bar.set_postfix_str(f"accuracy {correct / i:.4f}", refresh=False)
    return int(comm.sum([correct])[0])


def choose(model, example):
    """The index of the completion with the lowest mean loss per token: the model's choice."""
    losses = [completion_loss(model, example.context, each) for each in example.completions]
    if not np.isfinite(losses).all():
        raise ArgumentError("the model's losses must be finite: it has diverged")
    return int(np.argmin(losses))


def completion_loss(model, context, completion):
    """The mean loss in nats of the tokens of completion (m,) after context (n,).

    If the two together have more than block_size + 1 tokens, the first ones are cut off.
    """
    row = np.concatenate([context, completion])[-(model.config.block_size + 1) :]
    targets = row[1:].copy()
    targets[: -len(completion)] = IGNORED
    return model.loss(row[None, :-1], targets[None])


def is_cut(example, block_size):
    """Whether a completion of the example loses the first tokens of its context."""
    longest = max(map(len, example.completions))
    return len(example.context) + longest > block_size + 1

"""What a new model is trained on before one's eyes: sums, or the characters of a text."""

from typing import Any, NamedTuple

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.data.addition import CHARACTERS, sum_text
from npgpt.data.tokenizer import CharsTokenizer, Tokenizer
from npgpt.errors import ArgumentError
from npgpt.explore.passes import next_tokens
from npgpt.layers.crossentropy import IGNORED
from npgpt.wording import counted

DIGITS = 2
LONGEST_TEXT = 2_000_000  # characters to learn from
MOST_CHARACTERS = 1000  # different ones
T_CHARS = 48  # a batch's sequences of characters


class Sums:
    """Sums of two numbers of two digits; only what comes after = is to be learnt."""

    name = "addition"
    B = 64
    prompt = "12+34=04"

    def __init__(self):
        self.tokenizer = CharsTokenizer(CHARACTERS)

    def batch(self, step):
        """The batch of a step: tokens and targets (B, T)."""
        rng = np.random.default_rng([step, 1])
        texts = [sum_text(a, b, DIGITS) for a, b in rng.integers(0, 10**DIGITS, (self.B, 2))]
        eot = self.tokenizer.eot
        rows = np.array([[eot, *self.tokenizer.encode(text)] for text in texts])
        return rows[:, :-1], np.stack([self.targets(row)[:-1] for row in rows])

    def targets(self, tokens):
        """The next tokens (T,) of a row of them, -1 before the =: the two numbers are anyone's."""
        equals = self.tokenizer.encode("=")[0]
        return np.where(np.cumsum(tokens == equals) > 0, next_tokens(tokens), IGNORED)


class Characters:
    """The characters of a text, from a random place on."""

    name = "characters"
    B = 16

    def __init__(self, text):
        if len(text) <= T_CHARS:
            raise ArgumentError(
                f"a text to learn from must have more than {T_CHARS} characters, not {len(text)}"
            )
        if len(text) > LONGEST_TEXT:
            raise ArgumentError(
                f"a text to learn from can have {LONGEST_TEXT:,} characters, not {len(text):,}"
            )
        characters = "".join(sorted(set(text)))
        if len(characters) > MOST_CHARACTERS:
            raise ArgumentError(
                f"a text to learn from can have {MOST_CHARACTERS} different characters, not"
                f" {counted(len(characters), 'different one')}"
            )
        self.tokenizer = CharsTokenizer(characters)
        self.tokens = np.array(self.tokenizer.encode(text))
        self.prompt = text[:T_CHARS].rstrip()

    def batch(self, step):
        """The batch of a step: tokens and targets (B, T)."""
        rng = np.random.default_rng([step, 2])
        starts = rng.integers(0, len(self.tokens) - T_CHARS, self.B)
        rows = self.tokens[starts[:, None] + np.arange(T_CHARS + 1)]
        rows[:, 0] = np.where(starts == 0, self.tokenizer.eot, rows[:, 0])
        return rows[:, :-1], rows[:, 1:]

    def targets(self, tokens):
        """The next tokens (T,) of a row of them."""
        return next_tokens(tokens)


Task = Sums | Characters


def config_of(task: Task) -> GPT2Config:
    """The sizes of a model that learns the task in a minute."""
    block_size = 64 if isinstance(task, Characters) else 16
    return GPT2Config(block_size, task.tokenizer.vocab_size, n_layer=2, n_head=4, n_embd=64)


class Source(NamedTuple):
    """Where a model comes from: its name, how its Parameters are made, tokenizer and task."""

    name: str
    parameters: Any
    tokenizer: Tokenizer
    task: Task | None
    prompt: str

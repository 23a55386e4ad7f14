"""The data of a run: the tokens for training and validation, and the tokenizer of both."""

import os

from npgpt.data.descriptions import check_same_tokenizer, tokenizer_from_description
from npgpt.data.token_files import open_tokens
from npgpt.errors import ArgumentError, FileError
from npgpt.wording import command, counted


class TrainingData:
    """`train` and `val` are Tokens; val is None if no files are named for validation.

    `tokenizer_description` is that of the tokenizer that made them, None if no file has one.
    """

    def __init__(self, train, val=""):
        """Open token files by their paths or patterns.

        Raises FileError where one cannot be read, ArgumentError where their tokenizers differ.
        """
        if not train:
            raise ArgumentError(
                "--train must name a token file; one is made of a text by"
                f" {command('prepare', 'text', 'FILE')}"
            )
        self.name = train
        self.train = open_named("--train", train)
        self.val = open_named("--val", val) if val else None
        self.tokenizer_description = self.train.tokenizer_description
        if self.val:
            check_same_tokenizer(
                f"--val {val}", self.val.tokenizer_description, train, self.tokenizer_description
            )
            self.tokenizer_description = (
                self.tokenizer_description or self.val.tokenizer_description
            )

    def check_unchanged(self, count, fingerprint):
        """Raise ArgumentError unless the tokens to train on are as many as, and those of, before.

        None: not known.
        """
        if count not in (None, len(self.train)):
            raise ArgumentError(
                f"--train {self.name}: has {counted(len(self.train), 'token')}, but had {count}"
                " when the run stopped"
            )
        if fingerprint not in (None, self.train.fingerprint):
            raise ArgumentError(
                f"--train {self.name}: has as many tokens as when the run stopped, but others"
            )

    def check_fits(self, config, T):
        """Raise if T is longer than the model's context, or a token outside its vocabulary."""
        if config.block_size < T:
            raise ArgumentError(
                f"T must be at most the model's block_size of {config.block_size}, not {T}"
            )
        for tokens in [self.train, *([self.val] if self.val else [])]:
            for path, highest in tokens.max_token_by_file():
                if highest >= config.vocab_size:
                    raise FileError(
                        f"{path}: token {highest} is outside the model's vocabulary of"
                        f" {config.vocab_size}"
                    )

    def reconcile_tokenizers(self, model, description):
        """The one Tokenizer of the data and of the model, whose description may be None, too."""
        check_same_tokenizer(f"--train {self.name}", self.tokenizer_description, model, description)
        description = self.tokenizer_description or description
        return None if description is None else tokenizer_from_description(description)


def open_named(option, patterns):
    """As open_tokens; its error begins with the option that names the files."""
    try:
        return open_tokens(patterns)
    except FileError as error:
        hint = ""
        if os.path.isdir(patterns):
            hint = f": name its files by a pattern: {option} '{os.path.join(patterns, '*.bin')}'"
        raise FileError(f"{option} {error}{hint}") from error

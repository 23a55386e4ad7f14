"""What a run trains on and validates on: two streams of tokens, and the tokenizer of both."""

from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import check_same_tokenizer, tokenizer_from
from npgpt.errors import ArgumentError, FileError


class TrainingData:
    """`train` and `val` are Tokens, the latter None where no files are named for validation.

    `tokenizer` is the description of the one that made them, None where no file has one.
    """

    def __init__(self, train, val=""):
        """Open token files by their paths or patterns.

        Raises FileError where one cannot be read, ArgumentError where their tokenizers differ.
        """
        if not train:
            raise ArgumentError("train must name a token file (npgpt prepare makes them)")
        self.name = train
        self.train, self.val = open_tokens(train), open_tokens(val) if val else None
        self.tokenizer = self.train.tokenizer
        if self.val:
            check_same_tokenizer(f"val: {val}", self.val.tokenizer, train, self.tokenizer)
            self.tokenizer = self.tokenizer or self.val.tokenizer

    def check_fits(self, config, T):
        """Refuse tokens that the model does not have, and sequences longer than its context."""
        if config.block_size < T:
            raise ArgumentError(f"T can be {config.block_size}, the model's block_size, not {T}")
        for tokens in [self.train, *([self.val] if self.val else [])]:
            for path, highest in tokens.highest_by_file():
                if highest >= config.vocab_size:
                    raise FileError(
                        f"{path}: has the token {highest}, but the model's go up to"
                        f" {config.vocab_size - 1}"
                    )

    def reconcile_tokenizers(self, model, description):
        """The one Tokenizer of the data and of the model, whose description may be None, too."""
        check_same_tokenizer(f"train: {self.name}", self.tokenizer, model, description)
        description = self.tokenizer or description
        return None if description is None else tokenizer_from(description)

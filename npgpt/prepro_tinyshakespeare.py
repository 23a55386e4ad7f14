"""Make token files of tinyshakespeare: 32,768 tokens for validation, the rest for training.

End-of-text comes before the text and after every blank line, as in llm.c's files of the same name.
Without --text the text is downloaded once, its sha256 verified, and cached.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.data import prepare
from npgpt.errors import FileError
from npgpt.files import read_text
from npgpt.wording import command, counted

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
VALIDATION_TOKENS = 32768


def download():
    """Download the text, unless it is in the cache -> its path."""
    return prepare.download(URL, SHA256, "tinyshakespeare.txt", "tinyshakespeare", "--text")


def tokenize(text, tokenizer):
    """Text -> tokens int32 (N,), with end-of-text in front and after every blank line."""
    *documents, last = text.split("\n\n")
    pieces = [*(document + "\n\n" for document in documents), last]
    return tokenizer.encode_pieces([(piece, True) for piece in pieces])


@program
def main(argv=None, prog=None):
    """Write tiny_shakespeare_val.bin and tiny_shakespeare_train.bin."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text, instead of a download")
    prepare.add_text_options(parser)
    args = parser.parse_args(argv)

    path = args.text or download()
    text = read_text(path)
    tokenizer = prepare.build_tokenizer(args.tokenizer, [text])
    tokens = tokenize(text, tokenizer)
    if len(tokens) <= VALIDATION_TOKENS:
        raise FileError(
            f"{path}: has {counted(len(tokens), 'token')}, but validation takes"
            f" {VALIDATION_TOKENS:,} and training the rest; {command('prepare', 'text')} takes"
            " shorter texts"
        )
    splits = {"val": tokens[:VALIDATION_TOKENS], "train": tokens[VALIDATION_TOKENS:]}
    counts = prepare.write_splits(args.out, "tiny_shakespeare", splits, tokenizer, args.format)
    prepare.print_next(args.out, "tiny_shakespeare", counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make token files of tinyshakespeare: 32,768 tokens for validation, the rest for training.

End-of-text stands in front of the text and after every blank line, as in llm.c's files of the same
name. Without --text the text is downloaded once, its sha256 checked, and kept in the user's cache.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.dataset import FORMATS, write_tokens
from npgpt.errors import FileError
from npgpt.files import opened
from npgpt.tokenizer import TOKENIZERS, get_tokenizer

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
VALIDATION_TOKENS = 32768


def download():
    """Fetch the text, unless it is in the cache already -> its path."""
    import pooch

    try:
        folder = pooch.os_cache("npgpt")
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", "tinyshakespeare.txt", folder))
    except (OSError, ValueError) as error:  # no network, no room, or wrong bytes
        raise FileError(
            f"tinyshakespeare cannot be downloaded from {URL} ({type(error).__name__}: {error});"
            " fetch it by other means and name it with --text FILE"
        ) from error


def read_text(path):
    """Read a UTF-8 file -> str."""
    with opened(path) as (file, _):
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{path}: not UTF-8 text (byte {error.start})") from error


def tokenize(text, tokenizer):
    """Text -> a list of tokens, with end-of-text in front and after every blank line."""
    documents = text.split("\n\n")
    tokens = []
    for i, document in enumerate(documents):
        end = "\n\n" if i + 1 < len(documents) else ""
        tokens += [tokenizer.eot, *tokenizer.encode(document + end)]
    return tokens


@program
def main(argv=None, prog=None):
    """Write tiny_shakespeare_val.bin and tiny_shakespeare_train.bin."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text, instead of a download")
    parser.add_argument("--out", type=Path, metavar="DIR", default="data", help="default: data")
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="gpt2", help="default: gpt2")
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument("--format", choices=FORMATS, default="llmc", help=formats)
    args = parser.parse_args(argv)

    tokenizer = get_tokenizer(args.tokenizer)
    path = args.text or download()
    tokens = tokenize(read_text(path), tokenizer)
    if len(tokens) <= VALIDATION_TOKENS:
        raise FileError(
            f"{path}: {len(tokens)} tokens, but validation takes {VALIDATION_TOKENS} and training"
            " the rest"
        )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{args.out}: cannot be made a folder: {error.strerror}") from error
    parts = {"val": tokens[:VALIDATION_TOKENS], "train": tokens[VALIDATION_TOKENS:]}
    for name, part in parts.items():
        out = args.out / f"tiny_shakespeare_{name}.bin"
        write_tokens(out, part, args.format)
        print(f"{out}: {len(part):,} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the programs that make token files share: options, fetching text, splitting, writing."""

import sys
from array import array
from pathlib import Path

import numpy as np

from npgpt.data.token_files import FORMATS, write_tokens
from npgpt.data.tokenizer import TOKENIZERS, CharsTokenizer, get_tokenizer, write_tokenizer
from npgpt.errors import ArgumentError, FileError


def add_out(parser):
    """Add the option --out."""
    parser.add_argument("--out", type=Path, metavar="DIR", default="data", help="default: data")


def add_text_options(parser):
    """Add the options --out, --tokenizer and --format."""
    add_out(parser)
    parser.add_argument(
        "--tokenizer", choices=[*TOKENIZERS, "chars"], default="gpt2",
        help="default: gpt2; chars has the characters of the text",
    )  # fmt: skip
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument("--format", choices=FORMATS, default="llmc", help=formats)


def add_val_fraction(parser):
    """Add the option --val-fraction, which `validation_share` checks."""
    parser.add_argument(
        "--val-fraction", type=float, metavar="F", default=0.1,
        help="how much is for validation; default: 0.1",
    )  # fmt: skip


def validation_share(count, fraction):
    """How many of count, which is 2 or more, are for validation: 1 or more, and never all."""
    if not 0 < fraction < 1:
        raise ArgumentError(f"--val-fraction must be between 0 and 1, not {fraction}")
    return min(max(1, round(count * fraction)), count - 1)


def download(url, sha256, name, what, option):
    """Fetch a file, unless it is in the user's cache already -> its path.

    With sha256 None any content will do. FileError says what cannot be had, and by which option it
    can be given.
    """
    import pooch

    folder = Path(pooch.os_cache("npgpt"))
    if not (folder / name).exists():
        print(f"downloading {url} to {folder / name}", file=sys.stderr)
    pooch.get_logger().setLevel("WARNING")  # what it says besides is for programmers
    known = None if sha256 is None else f"sha256:{sha256}"
    try:
        return Path(pooch.retrieve(url, known, name, folder, progressbar=sys.stderr.isatty()))
    except (OSError, ValueError) as error:  # no network, no room, or wrong bytes
        raise FileError(
            f"{what} cannot be downloaded from {url} ({type(error).__name__}: {error});"
            f" fetch it by other means and name it with {option} FILE"
        ) from error


def tokenizer_for(name, documents):
    """The tokenizer called name; that called chars has the characters of the documents."""
    if name == "chars":
        return CharsTokenizer("".join(sorted(set().union(*documents))))
    return get_tokenizer(name)


def encode(documents, tokenizer, quiet=False):
    """Documents -> tokens int32 (N,), with end-of-text in front of each.

    A terminal shows the progress, unless quiet.
    """
    from tqdm import tqdm

    tokens = array("i")
    for document in tqdm(documents, unit=" documents", leave=False, disable=quiet or None):
        tokens.append(tokenizer.eot)
        tokens.fromlist(tokenizer.encode(document))
    return np.asarray(tokens)


def make_folder(path):
    """Make a folder and those above it, as far as they are missing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be made a folder: {error.strerror}") from error


def write_parts(folder, name, parts, tokenizer, format="llmc"):
    """Write NAME_PART.bin and NAME_PART.tokenizer.json for each part and its tokens."""
    make_folder(folder)
    for part, tokens in parts.items():
        path = folder / f"{name}_{part}.bin"
        write_tokens(path, tokens, format)
        finish(path, len(tokens), tokenizer)


def finish(path, count, tokenizer):
    """Write the tokenizer's description beside a token file and print how many tokens it has."""
    write_tokenizer(path, tokenizer.description)
    print(f"{path}: {count:,} tokens")

"""What the programs that make token files share: options, downloads, splitting, writing."""

import sys
from pathlib import Path

from npgpt.data.descriptions import description_file
from npgpt.data.token_files import TOKEN_FORMATS, write_tokens
from npgpt.data.tokenizer import TOKENIZERS, CharsTokenizer, get_tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import cache_folder, is_offline
from npgpt.wording import command, counted

# of a small model on a text
SETTINGS = "--n-layer 4 --n-head 4 --n-embd 128 -B 12 --steps 2000 --lr 1e-3 --sample-every 500"


def add_out(parser):
    """Add the option --out."""
    parser.add_argument("--out", type=Path, metavar="DIR", default="data", help="default: data")


def add_text_options(parser):
    """Add the options --out, --tokenizer and --format."""
    add_out(parser)
    parser.add_argument(
        "--tokenizer", choices=[*TOKENIZERS, "chars"], default="gpt2",
        help="default: gpt2; chars: one token per distinct character of the text",
    )  # fmt: skip
    formats = "; ".join(f"{name}: {what}" for name, what in TOKEN_FORMATS.items())
    parser.add_argument("--format", choices=TOKEN_FORMATS, default="llmc", help=formats)


def add_val_fraction(parser):
    """Add the option --val-fraction, which `validation_count` checks."""
    parser.add_argument(
        "--val-fraction", type=float, metavar="F", default=0.1,
        help="fraction held out for validation; default: 0.1",
    )  # fmt: skip


def validation_count(count, fraction):
    """How many of count >= 2 items to hold out: at least 1, at most count - 1."""
    if not 0 < fraction < 1:
        raise ArgumentError(f"--val-fraction must be between 0 and 1, not {fraction}")
    return min(max(1, round(count * fraction)), count - 1)


def download(url, sha256, name, what, option):
    """Download a file to the cache, as NPGPT_CACHE and NPGPT_OFFLINE say, unless it is there.

    sha256 None skips verification. Raises FileError, which names the file (`what`) and the option
    that takes a local copy. -> its path.
    """
    import pooch

    folder = cache_folder()
    path = folder / name
    if is_offline():
        if path.exists() and sha256 in (None, pooch.file_hash(path)):
            return path
        problem = "is not the published file" if path.exists() else "not found"
        raise FileError(
            f"{path}: {problem}, and offline mode forbids downloading {what}: download it yourself"
            f" and pass it with {option} FILE"
        )
    if not path.exists():
        print(f"downloading {url} to {path}", file=sys.stderr)
    pooch.get_logger().setLevel("WARNING")  # its info messages are for developers
    known = None if sha256 is None else f"sha256:{sha256}"
    try:
        return Path(pooch.retrieve(url, known, name, folder, progressbar=sys.stderr.isatty()))
    except (OSError, ValueError) as error:  # no network, disk full, or wrong sha256
        raise FileError(
            f"{what} cannot be downloaded from {url} ({type(error).__name__}: {error});"
            f" download it yourself and pass it with {option} FILE"
        ) from error


def build_tokenizer(name, documents):
    """The tokenizer of this name; `chars` gets the characters of the documents."""
    if name == "chars":
        return CharsTokenizer("".join(sorted(set().union(*documents))))
    return get_tokenizer(name)


def make_folder(path):
    """Create a folder and its missing parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be created: {error.strerror}") from error


def write_splits(folder, name, splits, tokenizer, format="llmc"):
    """Write NAME_SPLIT.bin and NAME_SPLIT.tokenizer.json; splits: {split: tokens (N,)}.

    -> their counts, {split: N}.
    """
    make_folder(folder)
    for split, tokens in splits.items():
        path = folder / f"{name}_{split}.bin"
        write_tokens(path, tokens, format, description_file(path, tokenizer.description))
        print(f"{path}: {counted(len(tokens), 'token')}")
    return {split: len(tokens) for split, tokens in splits.items()}


def print_next(folder, name, counts, T=64, settings=SETTINGS):
    """Print the command that trains a small model on the files, whose counts are {split: N}.

    A split of a single token is of no use, and nothing is printed where that is for training.
    """
    if counts["train"] < 2:
        return
    words = ["train", "--run", f"{name}_run"]
    for split in ("train", "val"):
        if counts[split] > 1:
            words += [f"--{split}", folder / f"{name}_{split}.bin"]
    words += ["-T", min(T, counts["train"] - 1), *settings.split()]
    print(f"train on it: {command(*words)}")

"""Make token files of any text: end-of-text before every document, the last ones for validation.

A document is a file, the text between blank lines, or a line. Of a single document, the last tokens
are for validation.
"""

import re
import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.data import prepare
from npgpt.errors import ArgumentError, FileError
from npgpt.files import read_text

# One document and the blank lines after it; a blank line may have spaces.
BETWEEN_BLANK_LINES = re.compile(r".+?(?:\n(?:[^\S\n]*\n)+|\Z)", re.DOTALL)


def find_files(paths):
    """The files among paths, and all *.txt below the folders among them, sorted."""
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        below = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not below:
            raise FileError(f"{path}: no .txt file is below this folder")
        found += below
    return found


def split(text, by):
    """Text -> its documents by `file`, `blank` (lines) or `line`, without blank ones."""
    if by == "blank":
        documents = BETWEEN_BLANK_LINES.findall(text)
    elif by == "line":
        documents = [line + "\n" for line in text.removesuffix("\n").split("\n")]
    else:
        documents = [text]
    return [document for document in documents if document.strip()]


def split_documents(documents, tokenizer, fraction):
    """Documents -> tokens for `val`, the last ones or the end of a single one, and `train`."""
    if len(documents) == 1:
        tokens = prepare.encode(documents, tokenizer)
        cut = len(tokens) - prepare.validation_count(len(tokens), fraction)
        return {"val": tokens[cut:], "train": tokens[:cut]}
    cut = len(documents) - prepare.validation_count(len(documents), fraction)
    pieces = {"val": documents[cut:], "train": documents[:cut]}
    return {name: prepare.encode(piece, tokenizer) for name, piece in pieces.items()}


@program
def main(argv=None, prog=None):
    """Write NAME_val.bin and NAME_train.bin."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="UTF-8, or a folder of .txt files"
    )
    prepare.add_text_options(parser)
    parser.add_argument(
        "--documents", choices=["file", "blank", "line"], default="file",
        help="what a document is: a file (the default), the text between blank lines, a line",
    )  # fmt: skip
    prepare.add_val_fraction(parser)
    parser.add_argument("--name", help="base name of the files; default: that of the first FILE")
    args = parser.parse_args(argv)

    name = args.name
    if name is None:
        first = args.files[0].resolve()
        name = first.name if first.is_dir() else first.stem
    if not name or name != Path(name).name:
        raise ArgumentError(f"--name must be a file's name without a folder, not {name!r}")
    texts = (read_text(path).removeprefix("\ufeff") for path in find_files(args.files))
    documents = [document for text in texts for document in split(text, args.documents)]
    if not documents:
        raise FileError(f"{', '.join(map(str, args.files))}: contains no text")
    tokenizer = prepare.build_tokenizer(args.tokenizer, documents)
    made = split_documents(documents, tokenizer, args.val_fraction)
    prepare.write_splits(args.out, name, made, tokenizer, args.format)
    return 0


if __name__ == "__main__":
    sys.exit(main())

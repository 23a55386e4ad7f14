"""Make token files of any text: end-of-text before every document, the last ones for validation.

Of a single document, the last tokens are for validation. Texts of any size are read a piece at a
time, and encoded on all cores.
"""

import os
import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.data import prepare
from npgpt.data.documents import DOCUMENTS, STDIN, read_pieces
from npgpt.data.spool import write_stream
from npgpt.data.tokenizer import END_OF_TEXT
from npgpt.errors import ArgumentError, FileError


def find_files(paths):
    """The files among paths, and all *.txt below the folders among them, sorted."""
    found = []
    for path in paths:
        if str(path) == STDIN or not path.is_dir():
            found.append(path)
            continue
        below = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not below:
            raise FileError(f"{path}: no .txt file is below this folder")
        found += below
    return found


def total_size(paths):
    """The bytes of the files, or None where one is standard input or cannot be read."""
    try:
        return sum(os.path.getsize(path) for path in paths)
    except OSError:
        return None


@program
def main(argv=None, prog=None):
    """Write NAME_val.bin and NAME_train.bin."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="UTF-8, also as .gz or .zst; -, standard input; or a folder of .txt files",
    )
    prepare.add_text_options(parser)
    parser.add_argument(
        "--documents", choices=DOCUMENTS, default="file",
        help="what a document is: a file (the default); blank: what is between blank lines; a line;"
        f" eot: what is between {END_OF_TEXT}",
    )  # fmt: skip
    parser.add_argument(
        "--field", metavar="NAME",
        help="the files are JSON lines, and a document is the text of this field",
    )  # fmt: skip
    prepare.add_val_fraction(parser)
    parser.add_argument("--name", help="base name of the files; default: that of the first FILE")
    args = parser.parse_args(argv)

    name = args.name
    if name is None:
        first = args.files[0].resolve()
        name = "stdin" if str(args.files[0]) == STDIN else first.name
        name = name if first.is_dir() else name.removesuffix(".gz").removesuffix(".zst")
        name = name if first.is_dir() else Path(name).stem
    if not name or name != Path(name).name:
        raise ArgumentError(f"--name must be a file's name without a folder, not {name!r}")
    from tqdm import tqdm

    paths = find_files(args.files)
    with tqdm(total=total_size(paths), unit="B", unit_scale=True, leave=False, disable=None) as bar:
        pieces = read_pieces(paths, args.documents, args.field, bar.update)
        what = ", ".join(map(str, args.files))
        counts = write_stream(
            pieces, name, args.tokenizer, args.out, args.val_fraction, args.format, what
        )
    prepare.print_next(args.out, name, counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())

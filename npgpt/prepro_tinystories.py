"""Make token files of TinyStories: the first shard for validation, the others for training.

End-of-text comes before every story, as in llm.c's files. Without --archive the archive (1.6 GB) is
downloaded once and cached. No member of it is ever unpacked to disk.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.core.threads import physical_cores
from npgpt.data import prepare
from npgpt.data.descriptions import description_file
from npgpt.data.tinystories import ALL, join, tokenize_shards
from npgpt.data.tokenizer import TOKENIZERS, get_tokenizer
from npgpt.errors import ArgumentError
from npgpt.files import open_for_reading, partial_folder
from npgpt.wording import counted

URL = (
    "https://huggingface.co/datasets/roneneldan/TinyStories/resolve/main/"
    "TinyStories_all_data.tar.gz"
)
# The archive's sha256 is not known: the lengths and checksums of gzip and tar are verified instead,
# as it is read to its end.
SHA256 = None
MOST_WORKERS = 8  # without --workers: each needs some hundred megabytes


def download():
    """Download the archive, unless it is in the cache -> its path."""
    return prepare.download(URL, SHA256, "TinyStories_all_data.tar.gz", "TinyStories", "--archive")


@program
def main(argv=None, prog=None):
    """Write tiny_stories_val.bin and tiny_stories_train.bin."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--archive", type=Path, metavar="FILE",
        help="TinyStories_all_data.tar.gz, instead of a download",
    )  # fmt: skip
    prepare.add_out(parser)
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="gpt2", help="default: gpt2")
    parser.add_argument(
        "--workers", type=int, metavar="N",
        default=min(physical_cores(), MOST_WORKERS),
        help=f"threads that tokenize; default: one per core, up to {MOST_WORKERS}",
    )  # fmt: skip
    parser.add_argument(
        "--shards", type=int, metavar="N", default=ALL,
        help="take only the first N of the archive's 50; default: all",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise ArgumentError(f"--workers must be at least 1, not {args.workers}")
    if not 2 <= args.shards <= ALL:
        raise ArgumentError(f"--shards must be from 2 to {ALL}, not {args.shards}")

    tokenizer = get_tokenizer(args.tokenizer)
    tokenizer.encode("")  # what it lacks shows before the long part, and is downloaded once
    archive = args.archive or download()
    with open_for_reading(archive):  # raises, before anything is made, if it is missing
        prepare.make_folder(args.out)
    with partial_folder(args.out / "tiny_stories") as folder:
        counts = tokenize_shards(archive, tokenizer, folder, args.shards, args.workers)
        totals = {}
        for part, numbers in (("val", range(1)), ("train", range(1, len(counts)))):
            path = args.out / f"tiny_stories_{part}.bin"
            count = sum(counts[number] for number in numbers)
            shards = [folder / f"{number:02}" for number in numbers]
            join(path, shards, count, description_file(path, tokenizer.description))
            print(f"{path}: {counted(count, 'token')}")
            totals[part] = count
    prepare.print_next(args.out, "tiny_stories", totals)
    return 0


if __name__ == "__main__":
    sys.exit(main())

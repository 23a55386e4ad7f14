"""Download the published models and reference files: checked, resumed where they broke off, kept.

A file takes its name when its sha256 is right. That is known here, except for gpt2-medium, -large
and -xl: there it is what the server tells with its redirect (X-Linked-Size, X-Linked-Etag), so that
a mirror is trusted with it, and it stays beside the file for later. A server that does not tell it
is refused.

Settings in the environment: NPGPT_CACHE, the folder to keep files in; NPGPT_OFFLINE=1, take only
what is there; NPGPT_MIRROR, a base URL instead of https://huggingface.co, with the same paths.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.formats.hub import FILES, fetch


@program
def main(argv=None, prog=None):
    """Download what a name stands for, or check that it is there."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("name", choices=FILES, help=", ".join(FILES), metavar="NAME")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="default: a folder NAME in the user's cache"
    )
    parser.add_argument("--offline", action="store_true", help="only check what is there")
    args = parser.parse_args(argv)

    where = fetch(args.name, args.dir, args.offline or None)
    for path, *_ in FILES[args.name]:
        file = (where.parent if args.name == "hellaswag" else where) / Path(path).name
        print(f"{file}: {file.stat().st_size:,} bytes, its sha256 is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())

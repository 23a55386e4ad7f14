"""Download the published models and reference files; verify, resume and cache them.

A file is kept only if its sha256 matches. The expected one is built in or, for gpt2-medium,
-large and -xl, sent by the server with its redirect (X-Linked-Size, X-Linked-Etag), so a mirror is
trusted for these; it is then recorded beside the file. A server that does not send it is refused.

Environment variables: NPGPT_CACHE, the cache folder; NPGPT_OFFLINE=1, never download;
NPGPT_MIRROR, a base URL instead of https://huggingface.co, with the same paths.
"""

import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.formats.hub import FILES, fetch
from npgpt.wording import size_text


@program
def main(argv=None, prog=None):
    """Download the files of a name, or verify those that exist."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("name", choices=FILES, help=", ".join(FILES), metavar="NAME")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="default: a folder NAME in the user's cache"
    )
    parser.add_argument("--offline", action="store_true", help="only verify existing files")
    args = parser.parse_args(argv)

    where = fetch(args.name, args.dir, args.offline or None)
    for path, *_ in FILES[args.name]:
        file = where / Path(path).name if where.is_dir() else where
        print(f"{file}: {size_text(file.stat().st_size)}, its sha256 is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())

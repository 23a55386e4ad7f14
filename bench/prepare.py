"""Megabytes of text a second that `npgpt prepare text` turns into tokens, beside tiktoken alone.

python -m bench.prepare --text tinyshakespeare.txt        2 GB, in 1 GB of memory

The text is repeated up to --megabytes. npgpt splits, encodes and writes it, with its data limited
to a gigabyte; tiktoken only encodes it, a megabyte of characters at a time, on as many threads.
"""

import json
import resource
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

from bench import tables
from bench.machine import describe, peak_memory
from bench.options import count, make_parser
from bench.results import write_result
from bench.turns import child, take_turns
from npgpt import get_threads
from npgpt.cli import program

LIMIT = 10**9  # bytes of npgpt's data
PIECE = 1 << 20  # characters


def by_npgpt(path, folder):
    from npgpt.prepro_text import main as prepare

    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    with redirect_stdout(sys.stderr):
        prepare([str(path), "--out", str(folder)])


def by_tiktoken(path, folder):
    import tiktoken

    encode, running = tiktoken.get_encoding("gpt2").encode_to_numpy, deque()
    with open(path, encoding="utf-8") as file, ThreadPoolExecutor(get_threads()) as pool:
        while piece := file.read(PIECE):
            running.append(pool.submit(encode, piece, disallowed_special=()))
            if len(running) > 2 * get_threads():
                running.popleft().result()
        for each in running:
            each.result()


SYSTEMS = {"npgpt": by_npgpt, "tiktoken alone": by_tiktoken}


def write_text(path, source, megabytes):
    """Write a text, repeated until it has so many megabytes -> its bytes."""
    text = source.read_bytes()
    with open(path, "wb") as file:
        for _ in range(-(-megabytes * 10**6 // len(text))):
            file.write(text)
        return file.tell()


@program
def main(argv=None, prog=None):
    """Measure both, write the result and print its table."""
    parser = make_parser(prog, __doc__, rounds=3)
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8")
    parser.add_argument("--megabytes", type=count, default=2000, metavar="N", help="default: 2000")
    parser.add_argument(
        "--only", choices=SYSTEMS, metavar="SYSTEM", help="once, of the text as it is"
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.only:
            start = time.perf_counter()
            SYSTEMS[args.only](args.text, folder)
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds, "peak": peak_memory()}))
            return 0
        path = Path(folder) / "text.txt"
        size = write_text(path, args.text, args.megabytes)
        runs = take_turns(
            list(SYSTEMS),
            args.rounds,
            lambda name: child("bench.prepare", "--only", name, "--text", path),
        )
    systems = {
        name: {key: [run[key] for run in its] for key in ("seconds", "peak")}
        for name, its in runs.items()
    }
    content = {"bytes": size, "rounds": args.rounds, "limit": LIMIT, "systems": systems}
    result, path = write_result("prepare", "prepare", describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

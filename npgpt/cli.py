"""What all programs share: the parser, exit statuses and one-line errors."""

import argparse
import functools
import inspect
import os
import sys

from npgpt.errors import NpgptError


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, `error: ... (see PROGRAM --help)`.

    Options are declared with hyphens, may be given with underscores, and are not abbreviated.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, allow_abbrev=False, **options)

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, with --some_option taken for --some-option."""
        args = list(sys.argv[1:] if args is None else args)
        end = args.index("--") if "--" in args else len(args)
        return super().parse_known_args([*map(hyphenated, args[:end]), *args[end:]], namespace)

    def error(self, message):
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def hyphenated(argument):
    """--some_option=some_value -> --some-option=some_value; anything else is unchanged."""
    if not argument.startswith("--"):
        return argument
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value


def add_batch_size(parser, help, default=None):
    """Add -B, spelled alike in all programs."""
    parser.add_argument(
        "-B", "--B", "--batch-size", dest="B", type=int, default=default, metavar="N", help=help
    )


def add_seq_len(parser, help, default=None):
    """Add -T, spelled alike in all programs."""
    parser.add_argument(
        "-T", "--T", "--seq-len", dest="T", type=int, default=default, metavar="N", help=help
    )


def program(main):
    """Decorate main(argv, prog), which returns an exit status; an NpgptError exits with 2."""

    @functools.wraps(main)
    def run(argv=None, prog=None):
        # None in a script that is run by its path
        spec = inspect.unwrap(main).__globals__.get("__spec__")
        prog = prog or (spec and f"python -m {spec.name}")
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(
                line_buffering=True, errors="replace"
            )  # progress shows, also through a pipe
        try:
            return main(argv, prog)
        except (NpgptError, MemoryError) as error:
            what = "not enough memory: " if isinstance(error, MemoryError) else ""
            print(f"error: {what}{error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except OSError as error:  # from printing; file errors are FileErrors
            if error.filename is not None:
                print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
                return 2
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # the reader, `head` say, has seen enough
                return 141
            print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
            return 2

    return run

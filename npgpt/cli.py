"""What all programs share: the parser, exit statuses and one-line errors."""

import argparse
import difflib
import functools
import inspect
import itertools
import os
import sys

from npgpt.errors import NpgptError
from npgpt.wording import as_command, counted, install_package

PATTERN = "PATTERN"  # the metavar of what takes a pattern of files
NEEDED = "numpy", "numba", "llvmlite", "tiktoken", "pooch", "loky", "tqdm", "filelock"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, `error: ... (see PROGRAM --help)`.

    Options are declared with hyphens, may be given with underscores, and are not abbreviated.
    """

    def __init__(self, *args, other_name=lambda option: None, **options):
        """other_name(option): a sentence about an option that has another name here, or None."""
        super().__init__(*args, allow_abbrev=False, **options)
        self.other_name, self.options_given = other_name, []
        self.register("type", int, whole_number)
        self.register("type", float, number)

    def parse_args(self, args=None, namespace=None):
        """As argparse's, with what is wrong and what to do said of an argument that is left."""
        args = list(sys.argv[1:] if args is None else args)
        parsed, left = self.parse_known_args(args, namespace)
        if left and left[0].startswith("-"):
            self.error(self.unknown_option(left[0]))
        if left:
            self.error(self.too_many(left[0], args))
        return parsed

    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, with --some_option taken for --some-option."""
        args = list(sys.argv[1:] if args is None else args)
        end = args.index("--") if "--" in args else len(args)
        self.options_given = [word for word in args[:end] if word.startswith("--")]
        return super().parse_known_args([*map(hyphenated, args[:end]), *args[end:]], namespace)

    def unknown_option(self, word):
        """A sentence about an option that there is not."""
        option = hyphenated(word).split("=")[0]
        name, known = option.lstrip("-"), [known.lstrip("-") for known in self.option_names()]
        begun = [each for each in known if each.startswith(name)]
        near = begun or difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean --{near[0]}?" if near else ""
        return self.other_name(option) or f"there is no option {option}{hint}"

    def option_names(self):
        """The long names of its options but for --help, which is never meant."""
        return [name for name in self._option_string_actions if "--" in name and name != "--help"]

    def too_many(self, word, args):
        """A sentence about a word that belongs to no option: one whose value is not quoted, say."""
        positions = [action.metavar for action in self._get_positional_actions()]
        before = [word for word in args[: args.index(word)] if word.startswith("-")]
        if positions:
            return f"{word} is one argument too many after {' '.join(positions)}"
        option, *value = hyphenated(before[-1] if before else "").split("=", 1)
        action = self._option_string_actions.get(option)
        if action is None:
            return f"{word} must follow the option that it belongs to"
        after = args[args.index(before[-1]) + 1 :]
        values = value + [*itertools.takewhile(lambda word: not word.startswith("-"), after)]
        if action.nargs == 0:
            return f"{option} takes no argument, but {word} follows it"
        hint = ""
        if not all(map(os.path.exists, values)):
            hint = f": quote what has spaces: {as_command([option, ' '.join(values)])}"
        elif action.metavar == PATTERN:
            hint = (
                f": quote a pattern, or the shell puts its files there: {option} '{like(values)}'"
            )
        return f"{option} takes one argument, but {counted(len(values), 'word')} follow it{hint}"

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            said = f"must be one of {', '.join(map(str, action.choices))}, not {value!r}"
            raise argparse.ArgumentError(action, said)

    def error(self, message):
        for option in self.options_given if " required" in message else ():
            if hyphenated(option).split("=")[0] not in (*self.option_names(), "--help"):
                message = self.unknown_option(option)  # what is required may be what was meant
        self.exit(2, f"error: {message.removeprefix('argument ')} (see {self.prog} --help)\n")


def whole_number(text):
    """A command line's int."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from error


def number(text):
    """A command line's float."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from error


def like(paths):
    """A pattern that these paths match."""
    start = os.path.commonprefix(paths)
    end = os.path.commonprefix([path[len(start) :][::-1] for path in paths])[::-1]
    return f"{start}*{end}"


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
        prog = prog or (spec and f"python -m {spec.name.removesuffix('.__main__')}")
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
        except ModuleNotFoundError as error:
            if error.name not in NEEDED:
                raise
            how = install_package(error.name)
            print(f"error: npgpt needs the package {error.name}: {how}", file=sys.stderr)
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

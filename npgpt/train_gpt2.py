"""Train a GPT-2, from scratch or from an existing model; the run's folder holds everything.

Settings come from a TOML file (--config), overridden by options, or from a run to continue
(--resume). Ctrl-C finishes the step, writes a checkpoint and prints how to continue.
"""

import argparse
import sys

from npgpt.cli import PATTERN, Parser, add_batch_size, add_seq_len, program
from npgpt.errors import TrainingError
from npgpt.parallel.launcher import launched_as
from npgpt.parallel.start import run_as_rank
from npgpt.parallel.supervisor import run_supervised
from npgpt.training.settings import (
    FIELDS,
    ON_RESUME,
    make_settings,
    option_of,
    other_name_message,
    read_toml,
)
from npgpt.training.train import resume_command, train
from npgpt.wording import command, counted


def parse(argv, prog):
    """The command line -> the arguments of train()."""
    parser = Parser(prog=prog, description=__doc__, other_name=other_name)
    parser.add_argument("--config", metavar="FILE", help="TOML file of the settings below")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue this run; of the options, only these may change: "
        + ", ".join(map(option_of, ON_RESUME)),
    )
    for name, field in FIELDS.items():
        metavar = PATTERN if name in ("train", "val") else field.type.__name__.upper()
        kind = {"type": field.type, "metavar": metavar}
        if field.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif field.metadata["choices"]:
            kind = {"choices": field.metadata["choices"]}
        default = "none" if field.default == "" else field.default
        text = f"{field.metadata['help']}; default: {default}"
        if name == "B":
            add_batch_size(parser, text)
        elif name == "T":
            add_seq_len(parser, text)
        else:
            parser.add_argument(option_of(name), dest=name, default=None, help=text, **kind)
    args = parser.parse_args(argv)
    values = {name: value for name, value in vars(args).items() if value is not None}
    config = values.pop("config", None)
    if config is None:
        return values
    settings = read_toml(config)
    make_settings(settings, f"{config}: ")  # so that errors in the file name it
    return {**settings, **values}


def other_name(option):
    """What an option of nanoGPT or of an earlier version is called here, a sentence, or None."""
    said = other_name_message(option.lstrip("-").replace("-", "_"), option_of)
    return said and f"there is no option {said}"


def main(argv=None, prog=None):
    """Train; exit status 1: loss NaN or infinite, 2: other errors, 128 + n: signal n."""
    status = run_supervised("; go on from the last checkpoint with --resume and the run's folder")
    if status is not None:
        return status
    return run_as_rank(as_rank, argv, prog)


@program
def as_rank(argv, prog):
    """Train, alone or as one of the ranks that mpiexec has started."""
    try:
        trained = train(**parse(argv, prog))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if trained.signal:
        _, ranks = launched_as()
        again = resume_command(trained.folder, ranks)
        print(f"stopped after step {trained.step}; continue with: {again}")
        return 128 + trained.signal
    early = " (the validation loss stopped improving)" if trained.early else ""
    print(f"done: {counted(trained.step, 'step')}{early}, in {trained.folder}")
    print(f"sample from it: {command('sample', '--model', trained.folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

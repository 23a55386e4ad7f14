"""Train a GPT-2, from scratch or from an existing model; the run's folder holds everything.

Settings come from a TOML file (--config), overridden by options, or from a run to continue
(--resume). Ctrl-C finishes the step, writes a checkpoint and prints how to continue.
"""

import argparse
import sys

from npgpt.cli import Parser, add_batch_size, add_seq_len, program
from npgpt.errors import TrainingError
from npgpt.training.settings import (
    FIELDS,
    ON_RESUME,
    make_settings,
    read_toml,
    unknown_setting_message,
)
from npgpt.training.train import train


def parse(argv, prog):
    """The command line -> the arguments of train()."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="TOML file of the settings below")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help=f"continue this run; of the settings, only these may change: {', '.join(ON_RESUME)}",
    )
    for name, field in FIELDS.items():
        kind = {"type": field.type, "metavar": field.type.__name__.upper()}
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
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, dest=name, default=None, help=text, **kind)
    args, others = parser.parse_known_args(argv)
    if others:
        name = others[0].lstrip("-").split("=")[0].replace("-", "_")
        parser.error(unknown_setting_message(name, FIELDS))
    values = {name: value for name, value in vars(args).items() if value is not None}
    config = values.pop("config", None)
    if config is None:
        return values
    settings = read_toml(config)
    make_settings(settings, f"{config}: ")  # so that errors in the file name it
    return {**settings, **values}


@program
def main(argv=None, prog=None):
    """Train; exit status 1: loss NaN or infinite, 2: other errors, 128 + n: signal n."""
    try:
        trained = train(**parse(argv, prog))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if trained.signal:
        command = f"npgpt train --resume {trained.folder}"
        print(f"stopped after step {trained.step}; continue with: {command}")
        return 128 + trained.signal
    early = " (the validation loss stopped improving)" if trained.early else ""
    print(f"done: {trained.step} steps{early}, in {trained.folder}")
    print(f"sample from it: npgpt sample --model {trained.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

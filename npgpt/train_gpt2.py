"""Train a GPT-2, from scratch or from a model at hand, into a folder that holds all of the run.

Settings come from a TOML file (--config), from options, which win, or from a run that is to go on
(--resume). Ctrl-C finishes the step, writes a checkpoint and says how to go on.
"""

import argparse
import sys

from npgpt.cli import Parser, add_batch_size, add_seq_len, program
from npgpt.errors import TrainingError
from npgpt.training.settings import FIELDS, make_settings, read_toml, unknown
from npgpt.training.train import train


def parse(argv, prog):
    """The command line -> the arguments of train()."""
    parser = Parser(prog=prog, description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="TOML file of the settings below")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run; --steps may be given")
    for name, field in FIELDS.items():
        kind = {"type": field.type, "metavar": field.type.__name__.upper()}
        if field.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif field.metadata["choices"]:
            kind = {"choices": field.metadata["choices"]}
        default = "none" if field.default == "" else field.default
        text = f"{field.metadata['help']} ({default})"
        if name == "B":
            add_batch_size(parser, text)
        elif name == "T":
            add_seq_len(parser, text)
        else:
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, dest=name, default=None, help=text, **kind)
    args, others = parser.parse_known_args(argv)
    if others:
        parser.error(unknown(others[0].lstrip("-").split("=")[0].replace("-", "_"), FIELDS))
    values = {name: value for name, value in vars(args).items() if value is not None}
    config = values.pop("config", None)
    if config is None:
        return values
    settings = read_toml(config)
    make_settings(settings, f"{config}: ")
    return {**settings, **values}


@program
def main(argv=None, prog=None):
    """Train; the exit status is 1 where the loss is NaN or infinite."""
    try:
        trained = train(**parse(argv, prog))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if trained.signal:
        go_on = f"npgpt train --resume {trained.folder}"
        print(f"stopped after step {trained.step}; to go on: {go_on}")
        return 128 + trained.signal
    early = ", as the validation loss fell no more" if trained.early else ""
    print(f"done: {trained.step} steps{early}, in {trained.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

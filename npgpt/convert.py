"""Convert a model between llm.c's files and Hugging Face's folders.

SOURCE is a model file, a folder, a run or a published name. A TARGET that ends in .bin becomes an
llm.c file, any other one a Hugging Face folder. The tokenizer's description is copied along.
"""

import os
import sys
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.core.parameters import count_parameters
from npgpt.errors import ArgumentError
from npgpt.formats.llmc import DEFAULT_VERSION, VERSIONS
from npgpt.formats.models import load_model
from npgpt.formats.registry import MODEL_FORMATS, target_format, write_model
from npgpt.wording import counted, size_text


def convert(source, target, version=None):
    """Write the model at source to target -> its GPT2Config, the path of its weights.

    version is that of an llm.c file: 1, 3 (the default) or 5. Raises ArgumentError where target
    would replace source or a file in it.
    """
    target = Path(target)
    files = MODEL_FORMATS[target_format(target)].files(target)
    for file in files:
        there = Path(os.path.realpath(file))
        if os.path.exists(file) and Path(os.path.realpath(source)) in (there, *there.parents):
            raise ArgumentError(f"TARGET must not replace {file}, which is of SOURCE {source}")
    params, tokenizer = load_model(source)
    write_model(target, params, tokenizer, version)
    return params.config, files[0]


@program
def main(argv=None, prog=None):
    """Convert SOURCE to TARGET and print what was written."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET", type=Path)
    versions = "; ".join(f"{version}: {what}" for version, what in VERSIONS.items())
    parser.add_argument(
        "--version", type=int, choices=VERSIONS,
        help=f"of an llm.c file; {versions}; default: {DEFAULT_VERSION}",
    )  # fmt: skip
    args = parser.parse_args(argv)
    name = target_format(args.target)
    versions = MODEL_FORMATS[name].versions
    if args.version and not versions:
        parser.error(f"--version applies only to a TARGET that ends in .bin, not to {args.target}")

    config, path = convert(args.source, args.target, args.version)
    version = args.version or DEFAULT_VERSION
    kind = f"{name}, version {version} ({versions[version]})" if versions else f"{name} (float32)"
    numbers = counted(count_parameters(config), "parameter"), size_text(path.stat().st_size)
    print(f"{path}: {kind}, {', '.join(numbers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

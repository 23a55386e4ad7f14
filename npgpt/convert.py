"""Convert a model between llm.c's files and Hugging Face's folders.

SOURCE is a model file, a folder, a run or a published name. A TARGET that ends in .bin becomes an
llm.c file, any other one a Hugging Face folder. The description of the tokenizer comes along.
"""

import os
import sys
from pathlib import Path

from npgpt.checkpoint import VERSIONS, write_checkpoint
from npgpt.cli import Parser, program
from npgpt.errors import ArgumentError
from npgpt.huggingface import CONFIG, MODEL, put_tokenizer, write_huggingface
from npgpt.parameters import count_parameters
from npgpt.pretrained import load_model


def convert(source, target, version=3):
    """Write the model at source to target -> its GPT2Config, the path of its weights.

    version is that of an llm.c file: 1, 3 or 5. Raises ArgumentError where target would replace
    source or a file in it.
    """
    target = Path(target)
    if target.suffix == ".safetensors":
        raise ArgumentError(f"TARGET must be a .bin file or a folder, not {target}")
    llmc = target.suffix == ".bin"
    files = [target] if llmc else [target / MODEL, target / CONFIG]
    for file in files:
        there = Path(os.path.realpath(file))
        if os.path.exists(file) and Path(os.path.realpath(source)) in (there, *there.parents):
            raise ArgumentError(f"TARGET must not replace {file}, which is of SOURCE {source}")
    params, tokenizer = load_model(source)
    if llmc:
        write_checkpoint(target, params, version)
        put_tokenizer(target, tokenizer)
    else:
        write_huggingface(target, params, tokenizer)
    return params.config, files[0]


@program
def main(argv=None, prog=None):
    """Convert SOURCE to TARGET and say what was written."""
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("target", metavar="TARGET", type=Path)
    versions = "; ".join(f"{version}: {what}" for version, what in VERSIONS.items())
    parser.add_argument(
        "--version", type=int, choices=VERSIONS, help=f"of an llm.c file; {versions}; default: 3"
    )
    args = parser.parse_args(argv)
    llmc = args.target.suffix == ".bin"
    if args.version and not llmc:
        parser.error(f"--version is for a TARGET that ends in .bin, not for {args.target}")

    version = args.version or 3
    config, path = convert(args.source, args.target, version)
    kind = f"llm.c, version {version} ({VERSIONS[version]})" if llmc else "Hugging Face (float32)"
    print(f"{path}: {kind}, {count_parameters(config):,} parameters, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

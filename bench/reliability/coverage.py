"""Damaged files for one reader, guided by what they reach in it; needs the package atheris.

The corpus begins with whole files; what reaches new code is kept in it, and what is not handled is
written to the working folder.
"""

import sys
import tempfile
from pathlib import Path

from npgpt.cli import Parser, program
from npgpt.errors import ArgumentError, NpgptError


@program
def main(argv=None, prog=None):
    """Run until a fault is found, Ctrl-C, or libFuzzer's own options say so."""
    try:
        import atheris
    except ImportError as error:
        raise ArgumentError("atheris is missing: pip install atheris") from error
    with atheris.instrument_imports(include=["npgpt"]):
        from bench.reliability.readers import READERS

    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--corpus", type=Path, default="corpus", help="folder; default: corpus")
    args, options = parser.parse_known_args(argv)
    reader, folder = READERS[args.reader], Path(tempfile.mkdtemp())
    args.corpus.mkdir(parents=True, exist_ok=True)
    for i, make in enumerate(reader.makes):
        place = folder / str(i)
        place.mkdir()
        make(place)
        (args.corpus / f"whole{i}").write_bytes((place / reader.file).read_bytes())
    path = folder / "0" / reader.file

    def read(content):
        path.write_bytes(content)
        try:
            reader.read(path)
        except NpgptError:
            pass

    atheris.Setup([sys.argv[0], "-timeout=2", *options, str(args.corpus)], read)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

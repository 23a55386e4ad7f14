"""Damaged files for one reader, guided by what they reach in it; needs the package atheris.

The corpus begins with whole files; what reaches new code is kept in it, and what is not handled is
written to the working folder.
"""

import argparse
import sys
import tempfile
from pathlib import Path


def main():
    """Run until a fault is found, Ctrl-C, or libFuzzer's own options say so."""
    try:
        import atheris
    except ImportError:
        sys.exit("error: atheris is missing: pip install atheris")
    with atheris.instrument_imports(include=["npgpt"]):  # before anything of npgpt is imported
        from bench.reliability.readers import READERS
        from npgpt.errors import NpgptError

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--corpus", type=Path, default="corpus", help="folder; default: corpus")
    args, options = parser.parse_known_args()
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


if __name__ == "__main__":
    main()

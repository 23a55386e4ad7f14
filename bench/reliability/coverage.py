"""Damaged files for one reader, guided by what they reach in it; needs the package atheris.

The corpus begins with whole files; what reaches new code is kept in it, and what is not handled is
written to the working folder.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Nothing of npgpt is imported here, nor what imports it: main has it instrumented first.
ROOT = Path(__file__).parents[2]
DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.M)


def campaign(reader, seconds):
    """Damaged files for a reader for some seconds, in a process of its own -> their counts."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        command = [sys.executable, "-m", "bench.reliability.coverage", "--reader", reader]
        command += ["--corpus", corpus, f"-max_total_time={seconds}"]
        done = subprocess.run(map(str, command), cwd=ROOT, capture_output=True, text=True)
        found = DONE.search(done.stderr)
        assert done.returncode == 0 and found, f"{reader}: {done.stderr[-3000:]}"
        reached = sum(not path.name.startswith("whole") for path in corpus.iterdir())
    return {"reader": reader, "inputs": int(found[1]), "reached": reached}


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

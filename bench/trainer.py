"""What the trainer adds to the bare step of GPT-2 124M: data, clipping, log and report.

python -m bench.trainer                     B=4, T=64
python -m bench.trainer --length 1024 --rounds 3

A bare step and the trainer's step alternate in one process, on the same model.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.machine import describe

B, VOCAB_SIZE = 4, 50257


def compare(T, rounds, folder):
    """Seconds of the bare steps and of the trainer's, a list each."""
    from npgpt.dataset import open_tokens, write_tokens
    from npgpt.reports import Reports
    from npgpt.run import Run
    from npgpt.settings import make_settings
    from npgpt.trainer import Trainer

    import npgpt

    rng = np.random.default_rng(0)
    write_tokens(folder / "tokens.bin", rng.integers(0, VOCAB_SIZE, 300_000))
    tokens = open_tokens(folder / "tokens.bin")
    values = {"train": str(tokens.paths[0]), "run": str(folder / "run"), "B": B, "T": T}
    settings = make_settings(values)
    model = npgpt.GPT2(npgpt.GPT2Config())
    trainer, run = Trainer(model, settings, tokens), Run(settings.run, settings)
    reports = Reports(0, settings.steps, B * T)
    x, y = rng.integers(0, VOCAB_SIZE, (2, B, T))

    def bare():
        model.forward_backward(x, y)
        model.update(1e-4)

    def trained():
        update = trainer.update()
        run.log_update(update, B * T)
        reports.update(update)

    seconds = {bare: [], trained: []}
    for turn in range(rounds + 1):
        for step in (bare, trained) if turn % 2 else (trained, bare):
            start = time.perf_counter()
            step()
            seconds[step].append(time.perf_counter() - start)
    run.close()
    return seconds[bare][1:], seconds[trained][1:]  # without the first, which compiles


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=64, metavar="T", help="default: 64")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="default: 20")
    args = parser.parse_args()
    if not 1 <= args.length <= 1024 or args.rounds < 1:
        parser.error("--length must be from 1 to 1024, and --rounds at least 1")
    with tempfile.TemporaryDirectory() as folder:
        bare, trained = compare(args.length, args.rounds, Path(folder))
    ratio = statistics.median(t / b for b, t in zip(bare, trained, strict=True))
    print(", ".join(f"{key} {value}" for key, value in describe().items()))
    print(f"bare step       {statistics.median(bare):.3f} s")
    print(f"trainer's step  {statistics.median(trained):.3f} s")
    print(f"ratio           {ratio:.3f}, a median of {args.rounds} pairs")


if __name__ == "__main__":
    main()

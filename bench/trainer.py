"""What the trainer adds to the bare step of GPT-2 124M: data, clipping, log and report.

python -m bench.trainer                     B=4, T=64
python -m bench.trainer -T 1024 --rounds 3

A bare step and the trainer's step alternate in one process, on the same model.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import tables
from bench.machine import describe
from bench.options import make_parser
from bench.results import write_result
from npgpt.cli import program

VOCAB_SIZE = 50257


def compare(B, T, rounds, folder):
    """Seconds of the bare steps and of the trainer's, a list each."""
    import npgpt
    from npgpt.data.token_files import write_tokens
    from npgpt.data.training_data import TrainingData
    from npgpt.training.progress import Progress
    from npgpt.training.run import Run
    from npgpt.training.settings import make_settings
    from npgpt.training.trainer import Trainer

    rng = np.random.default_rng(0)
    write_tokens(folder / "tokens.bin", rng.integers(0, VOCAB_SIZE, 300_000))
    values = {"train": str(folder / "tokens.bin"), "run": str(folder / "run"), "B": B, "T": T}
    settings = make_settings(values)
    model = npgpt.GPT2(npgpt.GPT2Config())
    trainer = Trainer(model, settings, TrainingData(settings.train))
    run, progress = Run.create(settings), Progress(0, settings.steps, B * T)
    run.start_from(0)
    x, y = rng.integers(0, VOCAB_SIZE, (2, B, T))

    def bare():
        model.forward_backward(x, y)
        trainer.optimizer.update(model.params, model.grads, 1e-4)

    def trained():
        update = trainer.update()
        run.logs.update(update, B * T)
        progress.update(update)

    seconds = {bare: [], trained: []}
    for turn in range(rounds + 1):
        for step in (bare, trained) if turn % 2 else (trained, bare):
            start = time.perf_counter()
            step()
            seconds[step].append(time.perf_counter() - start)
    run.close()
    return seconds[bare][1:], seconds[trained][1:]  # without the first, which compiles


@program
def main(argv=None, prog=None):
    """Measure both, write the result and print its table."""
    parser = make_parser(prog, __doc__, B=4, T=64, rounds=20)
    args = parser.parse_args(argv)
    if args.T > 1024:
        parser.error(f"-T/--seq-len must be at most 1024, the block_size, not {args.T}")
    with tempfile.TemporaryDirectory() as folder:
        bare, trained = compare(args.B, args.T, args.rounds, Path(folder))
    content = {"B": args.B, "T": args.T, "bare": bare, "trainer": trained}
    name = f"trainer_{args.B}x{args.T}"
    result, path = write_result("trainer", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

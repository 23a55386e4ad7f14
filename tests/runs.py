"""What the tests of whole runs share: their settings, and what a run has left."""

import json

from npgpt.formats.run_checkpoint import checkpoint_steps

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 8, "B": 2, "T": 8}


def content(run):
    """Name -> bytes of all files of the last checkpoint, and of the logs but for their times."""
    last = run / "checkpoints" / f"step_{checkpoint_steps(run)[-1]:08d}"
    files = {path.name: path.read_bytes() for path in last.iterdir()}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None), line.pop("tokens_per_second", None)
    return {**files, "main.log": (run / "main.log").read_bytes(), "log.jsonl": lines}


SETTINGS = {
    **SIZES, "steps": 20, "val_every": 7, "checkpoint_every": 5, "total_batch": 32, "lr": 1e-2,
    "warmup": 4, "skip_norm_z": 3.0,
}  # fmt: skip

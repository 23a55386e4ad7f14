"""Runs on 1, 2 and 4 ranks, their losses beside each other; and one whose gradients are wrong."""

import json
import tempfile
from pathlib import Path

import numpy as np

from bench.parallel.launch import command, finish
from bench.reliability.runs import make_data
from npgpt.data.batches import ORDERS

SIZES = 1, 2, 4
STEPS = 50
ROWS = 16  # sequences of an update, in two micro-batches
LONGER = 260  # steps: outliers are skipped only after 128
SETTINGS = {
    "n_layer": 2, "n_head": 2, "n_embd": 32, "T": 16, "total_batch": 16 * ROWS, "lr": 1e-3,
    "clip": 0.5, "val_every": 25, "val_batches": 0, "checkpoint_every": 0,
    "skip_loss_z": 1.0, "skip_norm_z": 1.0,
}  # fmt: skip
LEAVE_OUT = """
import sys
import numpy as np
from npgpt.parallel import exchange
from npgpt.train_gpt2 import main
right = exchange.add_in_order
exchange.add_in_order = lambda terms, out: right([*terms[:-1], np.zeros_like(terms[-1])], out)
sys.exit(main(sys.argv[1:]))
"""


def options(folder, run, ranks, **changes):
    """The options of npgpt train for a run on so many ranks."""
    values = {
        **SETTINGS, "train": folder / "train.bin", "val": folder / "val.bin", "run": run,
        "B": ROWS // 2 // ranks, "steps": LONGER, **changes,
    }  # fmt: skip
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]


def read_log(run):
    """The training losses of a run, its validation losses, and the steps that were skipped."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "loss" in line]
    losses = np.array([line["loss"] for line in updates])
    val_losses = np.array([line["val_loss"] for line in lines if "val_loss" in line])
    return losses, val_losses, [line["step"] for line in updates if line["skipped"]]


def differences(progress=lambda: None):
    """For each order, number of ranks and way, the largest difference to one rank's losses."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_data(folder)

        def trained(name, ranks, program=("-m", "npgpt", "train"), **changes):
            finish(command(ranks, *program, *options(folder, folder / name, ranks, **changes)))
            progress()
            return read_log(folder / name)

        def compare(expected, other, **what):
            losses, val_losses, skipped = other
            assert skipped == expected[2], f"{what}: {skipped} were skipped, not {expected[2]}"
            apart = np.abs(losses - expected[0])
            found.append({
                **what, "steps": len(losses), "skipped": len(skipped),
                "largest of 50": float(apart[:STEPS].max()), "largest": float(apart.max()),
                "validation": float(np.abs(val_losses - expected[1]).max()),
            })  # fmt: skip

        for order in ORDERS:
            alone = trained(f"{order}1", 1, order=order)
            for ranks in SIZES[1:]:
                for way in ("shards", "whole", "bf16"):
                    changes = {"order": order, "wire": "bf16" if way == "bf16" else "fp32"}
                    if way == "bf16":
                        changes |= {"skip_loss_z": 0, "skip_norm_z": 0}
                        if order != "shuffle":
                            continue
                        reference = trained(f"{order}{ranks}ref", 1, **{**changes, "wire": "fp32"})
                    else:
                        reference = alone
                    shard = "--no-shard-optimizer" if way == "whole" else "--shard-optimizer"
                    name = f"{order}{ranks}{way}"
                    program = ("-m", "npgpt", "train", shard)
                    other = trained(name, ranks, program, **changes)
                    compare(reference, other, order=order, ranks=ranks, way=way)
        wrong = trained("wrong", 2, ("-c", LEAVE_OUT), order="shuffle", skip_loss_z=0,
                        skip_norm_z=0)  # fmt: skip
        right = trained("right", 1, order="shuffle", skip_loss_z=0, skip_norm_z=0)
        control = float(np.abs(wrong[0] - right[0])[:STEPS].max())
    return {"runs": found, "control": control}

"""Seconds until a model has learnt tinyshakespeare's characters: npgpt and PyTorch in turn.

python -m bench.learn --text FILE           all goals
python -m bench.learn --text FILE --goals 1.90

A goal is a loss on nanoGPT's validation split, the last tenth, all of it, or the best loss in 20
minutes. Seconds are those of a whole process: start-up, compilation (npgpt's kernels are compiled
before, as on a user's machine after the first run), training, and the validation that shows it.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench import tables
from bench.machine import describe, supported
from bench.options import make_parser, require
from bench.recipes import GOALS, SYSTEMS
from bench.results import write_result
from bench.turns import child, take_turns
from npgpt.cli import program

TIMED_STEPS = 12  # of which the last half are taken for the speed


def run_npgpt(recipe, data, seed, since):
    """Train by the recipe -> the validation loss and the steps done."""
    import npgpt
    from npgpt.data.token_files import open_tokens
    from npgpt.evaluation.loss import mean_loss
    from npgpt.kernels.products.precision import has_bf16_hardware

    precision = "bf16" if has_bf16_hardware() else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        options = {"train": str(data / "train.bin"), "seed": seed, "precision": precision}
        options |= {"quiet": True, **recipe.settings}
        if recipe.minutes:
            timed = npgpt.train(run=f"{folder}/timed", **{**options, "steps": TIMED_STEPS})
            lines = (timed.folder / "log.jsonl").read_text().splitlines()
            options["steps"] = recipe.steps_in_time(
                [json.loads(line)["seconds"] for line in lines], time.perf_counter() - since
            )
        trained = npgpt.train(run=f"{folder}/run", **options)
    T = recipe.settings["T"]
    loss = mean_loss(trained.model, open_tokens(data / "val.bin"), max(1, 4096 // T), T)
    return {"loss": loss, "steps": trained.step, "uncounted": 0.0}


def write_data(path, folder):
    """Write train.bin, the first nine tenths of a text's characters, and val.bin, the rest."""
    import numpy as np

    from npgpt.data.descriptions import write_tokenizer
    from npgpt.data.token_files import write_tokens
    from npgpt.data.tokenizer import CharsTokenizer
    from npgpt.files import read_text

    text = read_text(path)
    tokenizer = CharsTokenizer("".join(sorted(set(text))))
    tokens = np.array(tokenizer.encode(text))  # (N,)
    cut = int(0.9 * len(tokens))
    for name, part in (("train", tokens[:cut]), ("val", tokens[cut:])):
        write_tokens(folder / f"{name}.bin", part)
        write_tokenizer(folder / f"{name}.bin", tokenizer.description)


def run_one(system, goal, data, seed, since):
    """Run one system to one goal in this process -> its loss, steps and seconds not to count."""
    if system == "compile":
        recipe = GOALS[goal].recipes["npgpt"]
        few = replace(recipe, settings={**recipe.settings, "steps": TIMED_STEPS}, minutes=0)
        return run_npgpt(few, data, seed, since)
    recipe = GOALS[goal].recipes[system]
    if system.startswith("PyTorch"):
        from bench.learn_pytorch import run_pytorch

        return run_pytorch(recipe, SYSTEMS[system], GOALS[goal].loss, data, seed, since)
    return run_npgpt(recipe, data, seed, since)


def measure(goal, systems, rounds, data):
    """Each system's seconds, losses and steps, a run a round, the round being the seed."""
    seeds = dict.fromkeys(systems, -1)

    def run(system):
        seeds[system] += 1
        options = ("--only", system, "--goals", goal, "--data", data, "--seed", seeds[system])
        start = time.perf_counter()
        found = child("bench.learn", *options)
        found["seconds"] = time.perf_counter() - start - found.pop("uncounted")
        return found

    runs = take_turns(systems, rounds, run)
    return {
        system: {key: [run[key] for run in its] for key in ("seconds", "loss", "steps")}
        for system, its in runs.items()
    }


@program
def main(argv=None, prog=None):
    """Measure, write a result for each goal and print its table."""
    since = time.perf_counter()
    parser = make_parser(prog, __doc__, rounds=3)
    parser.add_argument("--text", type=Path, metavar="FILE", help="tinyshakespeare as one text")
    parser.add_argument("--goals", nargs="+", choices=GOALS, default=list(GOALS), metavar="GOAL")
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, metavar="NAME",
        help=f"of these, those that a goal has: {'; '.join(SYSTEMS)}; default: all that this CPU"
        " has a precision for",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=[*SYSTEMS, "compile"],
        help=f"run it in this process, to the first goal; compile: npgpt, {TIMED_STEPS} steps",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="with --only: the token files")
    parser.add_argument("--seed", type=int, default=0, help="with --only; default: 0")
    args = parser.parse_args(argv)
    if args.only:
        print(json.dumps(run_one(args.only, args.goals[0], args.data, args.seed, since)))
        return 0
    if args.text is None:
        parser.error("--text must name the file of the text")
    chosen = args.systems or supported(SYSTEMS)
    if "npgpt" not in chosen:
        parser.error("--systems must have npgpt among them, to which the others are compared")
    require(parser, "torch")
    with tempfile.TemporaryDirectory() as folder:
        write_data(args.text, Path(folder))
        for goal in args.goals:
            child("bench.learn", "--only", "compile", "--goals", goal, "--data", folder)
            systems = [name for name in GOALS[goal].recipes if name in chosen]
            content = {
                "goal": goal, "rounds": args.rounds, "target": GOALS[goal].loss,
                "systems": measure(goal, systems, args.rounds, folder),
                "recipes": {name: GOALS[goal].recipes[name].settings for name in systems},
            }  # fmt: skip
            name = f"learn_{goal.replace(' ', '_')}"
            result, path = write_result("learn", name, describe(), content, args.out)
            print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

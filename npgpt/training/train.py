"""A training run from Python: begin one, or go on with one."""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from npgpt.core.threads import set_threads
from npgpt.data.tokenizer import read_tokenizer
from npgpt.data.training_data import TrainingData
from npgpt.errors import ArgumentError, FileError
from npgpt.formats.run_checkpoint import load
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import check_memory
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.training.loop import train_loop
from npgpt.training.progress import clock
from npgpt.training.run import Run, check_disk
from npgpt.training.settings import as_toml, make_settings
from npgpt.training.start import make_model, model_of, step_seconds
from npgpt.training.trainer import Trainer


class Trained(NamedTuple):
    """What a run has come to: its folder, the GPT2, the steps done, the last loss and the best.

    signal is the number of the one that ended it, 0 where none did; early is whether patience did.
    """

    folder: Path
    model: GPT2
    step: int
    loss: float | None
    best_val_loss: float | None
    signal: int
    early: bool


def train(resume: str | Path | None = None, **settings: Any) -> Trained:
    """Train by the given settings (those of npgpt.training.settings), or go on with a run.

    resume is the folder of the run that is to go on, bit for bit; only `steps` can then be given,
    how many there are to be. Raises ArgumentError and FileError before anything is written, and
    TrainingError where the loss is NaN or infinite: the last finite state is then a checkpoint.
    """
    if resume is None:
        trainer = begin(make_settings(settings))
        run = Run.create(trainer.settings)
    else:
        run = Run.reopen(resume, **settings)
    with closing(run):
        if resume is not None:
            trainer = reopen(run)
        run.begin(trainer.step)
        print(as_toml(run.settings), end="")
        s = run.settings
        if s.threads:
            set_threads(s.threads)
        seconds = step_seconds(trainer.model, s.B, s.T, s.accumulation)
        left = clock((s.steps - trainer.step) * seconds)
        print(f"about {seconds:.2g} s a step, {left} for {s.steps - trainer.step} steps")
        update, number = train_loop(run, trainer)
    loss = None if update is None else update.loss
    early = not number and trainer.step < s.steps
    return Trained(
        run.folder, trainer.model, trainer.step, loss, trainer.best_val_loss, number, early
    )


def begin(s):
    """The Trainer of a new run by these Settings."""
    data = TrainingData(s.train, s.val)
    return Trainer(make_model(s, data), s, data)


def reopen(run):
    """The Trainer of a run that is to go on, as it was at its last checkpoint or at its start."""
    s = run.settings
    if not run.steps():
        return begin(s)
    data, folder = TrainingData(s.train, s.val), run.checkpoint(run.steps()[-1])
    params, state = load(folder, OPTIMIZERS[s.optimizer].MOMENTS)
    config = params.config
    data.check_fits(config, s.T)
    loaded = 3 * params.flat.nbytes
    check_disk(s, check_memory(config, s.B, s.T, s.recompute, s.optimizer, loaded))
    if s.steps < state["step"]:
        raise ArgumentError(f"steps must be at least the {state['step']} done, not {s.steps}")
    description = read_tokenizer(folder / "model.bin")
    model = model_of(s, config, params, data.reconcile_tokenizers(folder, description))
    trainer = Trainer(model, s, data)
    try:
        trainer.restore(state)
    except (KeyError, TypeError) as error:
        raise FileError(f"{folder / 'state.json'}: the state is damaged: {error}") from error
    return trainer

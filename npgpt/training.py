"""A training run from Python: begin one, or go on with one."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from npgpt import training_state
from npgpt.errors import ArgumentError, FileError
from npgpt.gpt2 import GPT2
from npgpt.loop import go
from npgpt.reports import clock
from npgpt.run import Run
from npgpt.settings import as_toml, make_settings
from npgpt.start import agreed, check_data, check_room, make_model, open_data, step_seconds
from npgpt.threads import set_threads
from npgpt.tokenizer import read_tokenizer
from npgpt.trainer import Trainer


class Trained(NamedTuple):
    """What a run has come to: its folder, the GPT2, the steps done, the last loss and the best.

    signal is the number of the one that ended it, 0 where none did; early is whether patience did.
    """

    folder: Path
    model: GPT2
    step: int
    loss: float | None
    val_loss: float | None
    signal: int
    early: bool


def train(resume=None, **settings):
    """Train by the given settings (those of npgpt.settings), or go on with a run -> Trained.

    resume is the folder of the run that is to go on, bit for bit; only `steps` can then be given,
    how many there are to be. Raises ArgumentError and FileError before anything is written, and
    TrainingError where the loss is no number any more: the last good state is then a checkpoint.
    """
    if resume is None:
        settings = make_settings(settings)
        tokens, val_tokens, tokenizer = open_data(settings)
        model = make_model(settings, tokens, val_tokens, tokenizer)
        trainer = Trainer(model, settings, tokens, val_tokens)
        run = Run(settings.run, settings)
    else:
        run = Run(resume, **settings)
    with closing(run):
        if resume is not None:
            trainer = reopen(run)
        run.begin(trainer.step)
        print(as_toml(run.settings), end="")
        s = run.settings
        if s.threads:
            set_threads(s.threads)
        seconds = step_seconds(trainer.model, s.B, s.T, trainer.accumulation)
        left = clock((s.steps - trainer.step) * seconds)
        print(f"about {seconds:.2g} s a step, {left} for {s.steps - trainer.step} steps")
        update, number = go(run, trainer)
    loss = None if update is None else update.loss
    early = not number and trainer.step < s.steps
    return Trained(run.folder, trainer.model, trainer.step, loss, trainer.best, number, early)


def reopen(run):
    """The Trainer of a run that is to go on, as it was at its last checkpoint or at its start."""
    s = run.settings
    tokens, val_tokens, tokenizer = open_data(s)
    if not run.steps():
        return Trainer(make_model(s, tokens, val_tokens, tokenizer), s, tokens, val_tokens)
    folder = run.checkpoint(run.steps()[-1])
    params, m, v, state = training_state.load(folder)
    check_data(s, params.config, tokens, val_tokens)
    check_room(s, params.config, loaded=3 * params.flat.nbytes)
    if s.steps < state["step"]:
        raise ArgumentError(f"steps must be at least the {state['step']} done, not {s.steps}")
    options = {"recompute": s.recompute, "precision": s.precision}
    model = GPT2(params.config, params=params, **options)
    model.m, model.v, model.step = m, v, state["updates"]
    model.tokenizer = agreed(s.train, tokenizer, folder, read_tokenizer(folder / "model.bin"))
    trainer = Trainer(model, s, tokens, val_tokens)
    try:
        if state["tokens"] != len(tokens):
            raise ArgumentError(
                f"train: {s.train} has {len(tokens)} tokens, but had {state['tokens']} before"
            )
        trainer.restore(state)
    except (KeyError, TypeError) as error:
        raise FileError(f"{folder / 'state.json'}: the state is damaged: {error}") from error
    return trainer

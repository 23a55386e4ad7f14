"""Training from Python: start a run, or resume one."""

from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from npgpt.core.threads import set_threads
from npgpt.data.descriptions import read_tokenizer
from npgpt.data.training_data import TrainingData
from npgpt.errors import ArgumentError, FileError, NpgptError, StateError
from npgpt.formats.run_checkpoint import load_checkpoint, way_back
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import check_memory
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.training.loop import train_loop
from npgpt.training.progress import format_duration
from npgpt.training.run import SETTINGS, Run, check_disk
from npgpt.training.settings import as_toml, make_settings
from npgpt.training.start import build_model, estimate_step_seconds, make_model
from npgpt.training.trainer import Trainer
from npgpt.wording import command, counted


class Trained(NamedTuple):
    """The result of a run: folder, GPT2, steps done, last training and best validation loss.

    signal is the number of the signal that ended it, or 0; early is whether patience ended it.
    """

    folder: Path
    model: GPT2
    step: int
    loss: float | None
    best_val_loss: float | None
    signal: int
    early: bool


def train(resume: str | Path | None = None, *, quiet: bool = False, **settings: Any) -> Trained:
    """Train with the given settings (fields of npgpt.training.settings.Settings), or resume a run.

    resume is the folder of a run to continue, bit for bit; then only some settings may be given,
    such as `steps`, the new total (npgpt.training.settings.ON_RESUME). With quiet nothing is
    printed; the losses are in the run's log.jsonl. `threads` stays in force afterwards, as with
    set_threads. Raises ArgumentError or FileError for bad arguments before
    anything is written, and TrainingError where the loss is NaN or infinite: the last finite state
    is then saved as a checkpoint.
    """
    if resume is None:
        trainer = new_trainer(make_settings(settings), quiet)
        run = Run.create(trainer.settings)
    else:
        run = Run.reopen(resume, **settings)
    with closing(run):
        if resume is not None:
            trainer = resumed_trainer(run, quiet)
        run.start_from(trainer.step, trainer.val_loss is not None)
        s = run.settings
        if s.threads:
            set_threads(s.threads)
        if not quiet:
            announce(run, trainer)
        update, signal_number = train_loop(run, trainer, quiet)
    loss = None if update is None else update.loss
    early = not signal_number and trainer.step < s.steps
    return Trained(
        run.folder, trainer.model, trainer.step, loss, trainer.best_val_loss, signal_number, early
    )


def announce(run, trainer):
    """Print the settings, how the learning rate goes on after a resume, and what it will take."""
    s, before = run.settings, run.settings_before
    print(f"{as_toml(s, changed=True)}the other settings: {run.folder / SETTINGS}")
    if s.steps != before.steps and trainer.step > 0:
        print(
            f"note: with {counted(s.steps, 'step')} in all, the learning rate goes on at"
            f" {s.learning_rate(trainer.step):.2e}; it was"
            f" {before.learning_rate(trainer.step - 1):.2e} in the last of {before.steps}"
        )
    if trainer.step == s.steps:
        print(
            f"{run.folder} has done its {counted(s.steps, 'step')}; for more of them:"
            f" {command('train', '--resume', run.folder, '--steps', 'N')}"
        )
        return
    if trainer.data.val and s.val_every and not trainer.val_size.n_bytes:
        print("no bits per byte: no tokenizer says what text the tokens are")
    seconds = estimate_step_seconds(trainer.model, s.B, s.T, s.grad_accum_steps)
    left = format_duration((s.steps - trainer.step) * seconds)
    n_left = counted(s.steps - trainer.step, "step")
    print(f"about {seconds:.2g} s a step, {left} for {n_left}")


def new_trainer(s, quiet):
    """The Trainer of a new run with these Settings."""
    data = TrainingData(s.train, s.val)
    return Trainer(make_model(s, data, quiet), s, data)


def resumed_trainer(run, quiet):
    """The Trainer of a resumed run, restored from its last checkpoint, if it has one."""
    s = run.settings
    steps = run.checkpoint_steps()
    if not steps:
        return new_trainer(s, quiet)
    folder = run.checkpoint_folder(steps[-1])
    with saying_what_to_do(run):
        data = TrainingData(s.train, s.val)
    params, state = load_checkpoint(folder, OPTIMIZERS[s.optimizer].MOMENTS)
    config, description = params.config, read_tokenizer(folder / "model.bin")
    with saying_what_to_do(run):
        tokenizer = data.reconcile_tokenizers(run.folder, description)
        data.check_fits(config, s.T)
        data.check_unchanged(state.get("tokens"), state.get("data"))
    loaded = params.flat.nbytes + OPTIMIZERS[s.optimizer].state_bytes(config)
    check_disk(s, check_memory(config, s.B, s.T, s.recompute, s.optimizer, loaded, quiet, True))
    if s.steps < state["step"]:
        raise ArgumentError(
            f"--steps must be at least the {state['step']:,} that the run has done, not {s.steps:,}"
        )
    trainer = Trainer(build_model(s, config, params, tokenizer), s, data)
    try:
        trainer.restore(state)
    except (KeyError, TypeError, StateError) as error:
        raise FileError(f"{folder}: the state is damaged: {error}; {way_back(folder)}") from error
    return trainer


@contextmanager
def saying_what_to_do(run):
    """Context whose errors, about the data of a resumed run, end with what to do."""
    try:
        yield
    except NpgptError as error:
        val = ["--val", "FILE"] if run.settings.val else []
        again = command("train", "--resume", run.folder, "--train", "FILE", *val)
        raise type(error)(
            f"{error}; a run goes on with the data that it began with: say where that is now by"
            f" {again}, or start a new run on other data (--model {run.folder} starts it from the"
            " weights of this one)"
        ) from error

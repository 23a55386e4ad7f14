"""Training from Python: start a run, or resume one."""

import dataclasses
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from npgpt.core.parameters import Parameters
from npgpt.core.threads import get_threads
from npgpt.data.descriptions import read_tokenizer
from npgpt.data.training_data import TrainingData
from npgpt.errors import ArgumentError, FileError, StateError
from npgpt.formats.run_checkpoint import checkpoint_folder, load_checkpoint, way_back
from npgpt.model.gpt2 import GPT2
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.parallel.communicator import ALONE
from npgpt.parallel.cores import divide_cores, unlike_cpus
from npgpt.parallel.start import communicator
from npgpt.parallel.weights import read_at_rank_0
from npgpt.training.loop import train_loop
from npgpt.training.progress import format_duration
from npgpt.training.run import SETTINGS, Follower, Run
from npgpt.training.settings import as_toml, make_settings
from npgpt.training.start import build_model, check_room, estimate_step_seconds, make_model
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
    such as `steps`, the new total (npgpt.training.settings.ON_RESUME). Started by mpiexec it is one
    of several ranks, which train together, and only rank 0 writes. With quiet nothing is printed;
    the losses are in the run's log.jsonl. `threads` stays in force afterwards, as with set_threads.
    Raises ArgumentError or FileError for bad arguments before anything is written, and
    TrainingError where the loss is NaN or infinite: the last finite state is then saved as a
    checkpoint.
    """
    with communicator() as comm:
        return train_as_rank(comm, resume, quiet or comm.rank > 0, settings)


def train_as_rank(comm, resume, quiet, settings):
    """As train, as one of the ranks of a communicator; what is written, rank 0 writes."""
    if resume is None:
        s = for_ranks(make_settings(settings), comm.size)
        notes = divide_cores(comm, s.threads)
        trainer = new_trainer(s, quiet, comm)
        run = Run.create(s) if comm.rank == 0 else Follower(s)
    else:
        run = reopened_run(comm, resume, settings)
    with closing(run):
        s = run.settings
        if resume is not None:
            notes = divide_cores(comm, s.threads)
            trainer = resumed_trainer(run, quiet, comm)
        comm.advice = f"; go on from the last checkpoint: {resume_command(s.run, comm.size)}"
        if comm.size > 1 and not s.in_shards(comm.size):
            notes += unlike_cpus(comm)
        run.start_from(trainer.step, trainer.val_loss is not None)
        if not quiet:
            announce(run, trainer, notes)
        update, signal_number = train_loop(run, trainer, quiet)
    loss = None if update is None else update.loss
    early = not signal_number and trainer.step < s.steps
    return Trained(
        run.folder, trainer.model, trainer.step, loss, trainer.best_val_loss, signal_number, early
    )


def resume_command(folder, ranks):
    """The command that continues a run with as many ranks."""
    again = command("train", "--resume", folder)
    return again if ranks == 1 else f"mpiexec -n {ranks} {again}"


def for_ranks(s, ranks):
    """The Settings of a new run on so many ranks: as if one rank had a B so many times as large.

    The run keeps them, so that it can go on with any number of ranks.
    """
    total_batch = s.total_batch or ranks * s.B * s.T
    if ranks > 1:
        s = dataclasses.replace(s, total_batch=total_batch, val_batches=ranks * s.val_batches)
    return s


def reopened_run(comm, folder, changes):
    """The run in the folder, which rank 0 opens, and the Followers of the others."""
    run = Run.reopen(folder, **changes) if comm.rank == 0 else None
    values = comm.broadcast_json(run and dataclasses.asdict(run.settings))
    return run or Follower(make_settings(values))


def announce(run, trainer, notes=()):
    """Print the settings, the ranks, how the learning rate goes on, and what it will take.

    notes: sentences about the cores.
    """
    s, before = run.settings, run.settings_before
    print(f"{as_toml(s, changed=True)}the other settings: {run.folder / SETTINGS}")
    B, grad_accum_steps = s.share(trainer.comm.size)
    if trainer.comm.size > 1:
        times = f"{grad_accum_steps} times " * (grad_accum_steps > 1)
        threads = f"{get_threads()} thread{'s' * (get_threads() > 1)}"
        print(f"{trainer.comm.size} ranks: {times}{B} sequences of an update and {threads} each")
    for note in notes:
        print(f"note: {note}")
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
    seconds = estimate_step_seconds(trainer.model, B, s.T, grad_accum_steps)
    left = format_duration((s.steps - trainer.step) * seconds)
    n_left = counted(s.steps - trainer.step, "step")
    print(f"about {seconds:.2g} s a step, {left} for {n_left}")


def new_trainer(s, quiet, comm=ALONE):
    """The Trainer of a new run with these Settings."""
    data = same_data(s, comm)
    return Trainer(make_model(s, data, quiet, comm), s, data, comm)


def resumed_trainer(run, quiet, comm=ALONE):
    """The Trainer of a resumed run, restored from its last checkpoint, if it has one.

    Rank 0 reads it, and sends the others what they need of it.
    """
    s = run.settings
    steps = comm.broadcast_json(run.checkpoint_steps())
    if not steps:
        return new_trainer(s, quiet, comm)
    folder = checkpoint_folder(run.folder, steps[-1])
    with saying_what_to_do(run):
        data = same_data(s, comm)
    params, state, description = read_state(folder, s, comm)
    config = params.config
    with saying_what_to_do(run):
        tokenizer = data.reconcile_tokenizers(run.folder, description)
        data.check_fits(config, s.T)
        data.check_unchanged(state.get("tokens"), state.get("data"))
    moments = 0 if s.in_shards(comm.size) else OPTIMIZERS[s.optimizer].state_bytes(config)
    check_room(s, config, params.flat.nbytes + moments, quiet, comm, resumed=True)
    if s.steps < state["step"]:
        raise ArgumentError(
            f"--steps must be at least the {state['step']:,} that the run has done, not {s.steps:,}"
        )
    trainer = Trainer(build_model(s, config, params, tokenizer), s, data, comm)
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
    except (ArgumentError, FileError) as error:
        val = ["--val", "FILE"] if run.settings.val else []
        again = command("train", "--resume", run.folder, "--train", "FILE", *val)
        raise type(error)(
            f"{error}; a run goes on with the data that it began with: say where that is now by"
            f" {again}, or start a new run on other data (--model {run.folder} starts it from the"
            " weights of this one)"
        ) from error


def same_data(s, comm):
    """The TrainingData of these Settings; ArgumentError where another rank's files are others."""
    data = TrainingData(s.train, s.val)
    if comm.size == 1:
        return data
    prints = comm.gather_json([tokens and tokens.fingerprint for tokens in (data.train, data.val)])
    for rank, found in enumerate(prints):
        for name, one, other in zip(("train", "val"), prints[0], found, strict=True):
            if one != other:
                raise ArgumentError(
                    f"--{name} {getattr(s, name)}: has other tokens at rank {rank} than at rank 0"
                )
    return data


def read_state(folder, s, comm):
    """A checkpoint's Parameters, state and tokenizer's description, at all ranks of comm.

    In shards the moments are left in the file, and only rank 0 has them in the state.
    """
    names, in_shards = OPTIMIZERS[s.optimizer].MOMENTS, s.in_shards(comm.size)
    moments = {}

    def read():
        params, state = load_checkpoint(folder, names, mapped=in_shards)
        moments.update((name, state.pop(name)) for name in names)
        return params, [state, read_tokenizer(folder / "model.bin")]

    params, (state, description) = read_at_rank_0(comm, read)
    if not in_shards:
        for name in names:
            if comm.rank > 0:
                moments[name] = Parameters(params.config)
            comm.broadcast(moments[name].flat)
    return params, {**state, **moments}, description

"""A run's folder: its settings, logs and checkpoints, and one process at a time.

It holds settings.toml, changes.jsonl (what was changed as it was resumed), log.jsonl, main.log,
loss.png, samples/, lock and checkpoints/, where each step_00000500/ is a checkpoint.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path

from npgpt.core.parameters import count_parameters
from npgpt.errors import ArgumentError, FileError
from npgpt.files import PARTIAL, atomic_write
from npgpt.formats.run_checkpoint import (
    CHECKPOINTS,
    best_step,
    checkpoint_folder,
    checkpoint_steps,
    is_readable,
    moments_of,
    remove_checkpoint,
    save_checkpoint,
    update_checkpoint,
)
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.training.logs import RunLogs, summary_writer_class
from npgpt.training.settings import (
    ON_RESUME,
    RENAMED,
    as_toml,
    make_settings,
    option_of,
    read_toml,
)
from npgpt.wording import command, counted, size_text

SETTINGS = "settings.toml"


class Run:
    """The folder of one run, locked by this process until close(); `create` or `reopen` it.

    `settings` are its Settings, `settings_before` those it was reopened with before any changed;
    `logs` its RunLogs, None before `start_from`.
    """

    def __init__(self, settings):
        self.settings, self.folder = settings, Path(settings.run)
        self.settings_before = settings
        self.logs = None
        if settings.tensorboard:
            summary_writer_class()  # raises, before anything is written, if it is missing
        self._lock()
        try:
            self._sweep()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, settings):
        """Create a run with these Settings; ArgumentError where its folder holds one already."""
        if os.path.exists(Path(settings.run) / SETTINGS):
            raise ArgumentError(
                f"--run {settings.run}: there is a run in this folder: continue it by"
                f" {command('train', '--resume', settings.run)}, or name another folder"
            )
        others = entries_of_others(Path(settings.run))
        if others:
            raise ArgumentError(
                f"--run {settings.run}: this folder holds {others[0]} and no run: name a new folder"
            )
        run = cls(with_absolute_paths(settings))
        try:
            run._write_settings()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def reopen(cls, folder, **changes):
        """Open the run in the folder, with changes to those of its settings that are ON_RESUME."""
        path = Path(folder) / SETTINGS
        if not os.path.exists(path):
            what = (
                f"not a run: it has no {SETTINGS}" if os.path.exists(folder) else "no such folder"
            )
            raise FileError(f"--resume {folder}: {what}")
        if fixed := ", ".join(map(option_of, sorted(changes.keys() - set(ON_RESUME)))):
            raise ArgumentError(
                f"--resume {folder}: {fixed} cannot change once a run has begun: leave out {fixed},"
                " or start a new run with --run; what can change is"
                f" {', '.join(map(option_of, ON_RESUME))}"
            )
        values = {RENAMED.get(key, key): value for key, value in read_toml(path).items()}
        values["run"] = str(folder)  # it may have been moved
        before = make_settings(values, f"{path}: ")
        run = cls(with_absolute_paths(dataclasses.replace(before, **changes)))
        run.settings_before = before
        return run

    def start_from(self, step, validated=True):
        """Continue from `step`: write the settings, and drop later entries from the logs.

        validated: whether the validation loss after this step is known.
        """
        self._write_settings()
        self._record_changes(step)
        self.logs = RunLogs(self.folder, step, self.settings.tensorboard, validated)

    def close(self):
        """Close the logs and release the lock."""
        if self.logs is not None:
            self.logs.close()
        self._file_lock.release()

    def checkpoint_steps(self):
        """The steps that have a checkpoint, ascending."""
        return checkpoint_steps(self.folder)

    def checkpoint_folder(self, step):
        """The folder of a step's checkpoint."""
        return checkpoint_folder(self.folder, step)

    def save(self, trainer):
        """Save the trainer's checkpoint, and remove those beyond `keep`.

        Of one that exists already only the validation loss can be new. All ranks must save at once.
        """
        folder = self.checkpoint_folder(trainer.step)
        if trainer.comm.broadcast_json(folder.exists()):
            update_checkpoint(folder, trainer.state())
        else:
            tokenizer = trainer.model.tokenizer and trainer.model.tokenizer.description
            save_checkpoint(folder, trainer.model.params, tokenizer, trainer.state())
        keep = {*self.checkpoint_steps()[-self.settings.keep :], best_step(self.folder)}
        for old in set(self.checkpoint_steps()) - keep:
            if is_readable(self.checkpoint_folder(old)):  # a damaged one may be the best
                remove_checkpoint(self.checkpoint_folder(old))

    def _record_changes(self, step):
        """Append what settings_before and settings differ in to changes.jsonl, if anything."""
        before, after = map(dataclasses.asdict, (self.settings_before, self.settings))
        changed = {key: [before[key], after[key]] for key in after if before[key] != after[key]}
        if changed:
            path = self.folder / "changes.jsonl"
            try:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, "changed": changed}) + "\n")
            except OSError as error:
                raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _write_settings(self):
        with atomic_write(self.folder / SETTINGS) as file:
            file.write(as_toml(self.settings).encode())

    def _lock(self):
        from filelock import FileLock, Timeout

        try:
            (self.folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            (self.folder / "samples").mkdir(exist_ok=True)
            ignored = self.folder / ".gitignore"
            if not ignored.exists():  # a run is made in a clone, and is not to be committed
                ignored.write_text("*\n", "utf-8")
            self._file_lock = FileLock(self.folder / "lock", timeout=0)
            self._file_lock.acquire()
        except Timeout as error:
            raise FileError(f"{self.folder}: in use by another process") from error
        except OSError as error:
            raise FileError(
                f"{self.folder}: cannot be written: {error.strerror or error}"
            ) from error

    def _sweep(self):
        """Remove the partial files of a killed process."""
        for folder in (self.folder, self.folder / "samples", self.folder / CHECKPOINTS):
            try:
                for left in folder.glob(f"*{PARTIAL}"):
                    left.unlink() if left.is_file() else shutil.rmtree(left)
            except OSError as error:
                raise FileError(
                    f"{folder}: partial files cannot be removed: {error.strerror or error}"
                ) from error


class Follower:
    """What a run is to the ranks that write nothing: settings, and a part in its checkpoints."""

    def __init__(self, settings):
        self.settings = self.settings_before = settings
        self.folder, self.logs = Path(settings.run), NoLogs()

    def start_from(self, step, validated=True):
        """As in Run, but there is nothing to write."""

    def close(self):
        """As in Run, but there is nothing to close."""

    def checkpoint_steps(self):
        """None that this rank could read."""
        return []

    def save(self, trainer):
        """Send rank 0 what it needs for a checkpoint."""
        if not trainer.comm.broadcast_json(None):
            for moment in moments_of(trainer.state()):
                for _ in moment.pieces():
                    pass


class NoLogs:
    """The logs of a Follower."""

    folder = None

    def update(self, *entry):
        """Write nothing; so do the others."""

    validation = sample = update

    def has_sample(self, step):
        """There is none to look for."""
        return False


def entries_of_others(folder):
    """What a folder holds that is not of a run whose process was killed as it began."""
    if not os.path.isdir(folder):
        return []
    own = {"lock", "checkpoints", "samples", ".gitignore"}
    return sorted(name for name in set(os.listdir(folder)) - own if not name.endswith(PARTIAL))


def with_absolute_paths(s):
    """The Settings with their data's paths absolute: a run may be resumed from another folder."""
    named = {name: getattr(s, name) for name in ("train", "val")}
    absolute = {name: os.path.abspath(path) for name, path in named.items() if path}
    return dataclasses.replace(s, **absolute)


def check_disk(s, config):
    """Raise ArgumentError if the checkpoints of a run of this GPT2Config do not fit on the disk."""
    checkpoint = 4 * count_parameters(config) + OPTIMIZERS[s.optimizer].state_bytes(config)
    free = shutil.disk_usage(nearest_existing_parent(s.run)).free
    n_more = max(1, s.keep + 2 - len(checkpoint_steps(s.run)))
    if checkpoint * n_more > free:
        raise ArgumentError(
            f"--run {s.run}: {counted(n_more, 'checkpoint')} of {size_text(checkpoint)} (those to"
            f" keep, the best and the one being written) do not fit into the {size_text(free)} that"
            " are free there: name a folder on another disk, or take a smaller --keep"
        )


def nearest_existing_parent(path):
    """path itself, or its nearest existing parent folder."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if os.path.isdir(folder))

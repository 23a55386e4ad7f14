"""A run's folder: its settings, logs and checkpoints, and one process at a time.

It holds settings.toml, log.jsonl, main.log, loss.png, samples/, lock and checkpoints/, where each
step_00000500/ is a checkpoint.
"""

import dataclasses
import os
import shutil
from pathlib import Path

from npgpt.errors import ArgumentError, FileError
from npgpt.files import PARTIAL, atomic_write
from npgpt.formats.run_checkpoint import (
    CHECKPOINTS,
    best_step,
    checkpoint_folder,
    checkpoint_steps,
    remove_checkpoint,
    save_checkpoint,
)
from npgpt.training.logs import RunLogs, summary_writer_class
from npgpt.training.settings import RENAMED, as_toml, make_settings, read_toml

SETTINGS = "settings.toml"


class Run:
    """The folder of one run, locked by this process until close(); `create` or `reopen` it.

    `settings` are its Settings; `logs` its RunLogs, None before `start_from`.
    """

    def __init__(self, settings):
        self.settings, self.folder = settings, Path(settings.run)
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
                f"run: {settings.run} already holds a run: continue it with"
                f" --resume {settings.run}, or choose another folder"
            )
        run = cls(settings)
        try:
            run._write_settings()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def reopen(cls, folder, **changes):
        """Open the run in the folder; of its settings, only `steps` can change."""
        path = Path(folder) / SETTINGS
        if not os.path.exists(path):
            raise FileError(f"{folder}: not a run: it has no {SETTINGS}")
        if changes.keys() - {"steps"}:
            others = ", ".join(sorted(changes.keys() - {"steps"}))
            raise ArgumentError(f"with resume only steps can be given, not {others}")
        values = {RENAMED.get(key, key): value for key, value in read_toml(path).items()}
        values["run"] = str(folder)  # it may have been moved
        return cls(dataclasses.replace(make_settings(values, f"{path}: "), **changes))

    def start_from(self, step):
        """Continue from `step`: write the settings, and drop later entries from the logs."""
        self._write_settings()
        self.logs = RunLogs(self.folder, step, self.settings.tensorboard)

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
        """Save the trainer's checkpoint unless it exists, and remove those beyond `keep`."""
        folder = self.checkpoint_folder(trainer.step)
        if not folder.exists():
            tokenizer = trainer.model.tokenizer and trainer.model.tokenizer.description
            save_checkpoint(folder, trainer.model.params, tokenizer, trainer.state())
        keep = {*self.checkpoint_steps()[-self.settings.keep :], best_step(self.folder)}
        for old in set(self.checkpoint_steps()) - keep:
            remove_checkpoint(self.checkpoint_folder(old))

    def _write_settings(self):
        with atomic_write(self.folder / SETTINGS) as file:
            file.write(as_toml(self.settings).encode())

    def _lock(self):
        from filelock import FileLock, Timeout

        try:
            (self.folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            (self.folder / "samples").mkdir(exist_ok=True)
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
            for left in folder.glob(f"*{PARTIAL}"):
                try:
                    left.unlink() if left.is_file() else shutil.rmtree(left)
                except OSError as error:
                    raise FileError(f"{left}: cannot be removed: {error.strerror}") from error


def check_disk(s, need):
    """Raise ArgumentError if the run's checkpoints do not fit on the disk.

    need is the memory Estimate of its model.
    """
    checkpoint = need.parameters + need.moments
    free = shutil.disk_usage(nearest_existing_parent(s.run)).free
    n_more = max(1, s.keep + 2 - len(checkpoint_steps(s.run)))
    if checkpoint * n_more > free:
        raise ArgumentError(
            f"run: {n_more} checkpoints of {checkpoint / 1e9:.2f} GB (those to keep, the best and"
            f" the one being written) do not fit into the {free / 1e9:.2f} GB free in {s.run}"
        )


def nearest_existing_parent(path):
    """path itself, or its nearest existing parent folder."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if os.path.isdir(folder))

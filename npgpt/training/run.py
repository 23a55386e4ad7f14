"""A run's folder: its settings, logs and checkpoints, and one process at a time.

It holds settings.toml, log.jsonl, main.log, loss.png, samples/, lock and checkpoints/, where each
step_00000500/ is a checkpoint.
"""

import os
import shutil
from pathlib import Path

from npgpt.errors import ArgumentError, FileError
from npgpt.files import written
from npgpt.formats.run_checkpoint import (
    CHECKPOINTS,
    PARTIAL,
    best_step,
    checkpoint_folder,
    checkpoint_steps,
    remove,
    save,
)
from npgpt.training.logs import RunLogs, summary_writer
from npgpt.training.settings import RENAMED, as_toml, make_settings, read_toml

SETTINGS = "settings.toml"


class Run:
    """The folder of one run, locked while this process has it; `create` or `reopen` it.

    `settings` are its Settings; `logs` its RunLogs, None before `begin`.
    """

    def __init__(self, settings):
        self.settings, self.folder = settings, Path(settings.run)
        self.logs = None
        if settings.tensorboard:
            summary_writer()  # that it is missing is told before anything is written
        self._lock()
        try:
            self._sweep()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, settings):
        """A new run by these Settings; ArgumentError where its folder holds one already."""
        if os.path.exists(Path(settings.run) / SETTINGS):
            raise ArgumentError(
                f"run: {settings.run} holds a run already: go on with it by"
                f" --resume {settings.run}, or name another folder"
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
        """The run that is in the folder, with another number of `steps`, if given."""
        path = Path(folder) / SETTINGS
        if not os.path.exists(path):
            raise FileError(f"{folder}: no run to go on with: it has no {SETTINGS}")
        if changes.keys() - {"steps"}:
            others = ", ".join(sorted(changes.keys() - {"steps"}))
            raise ArgumentError(f"resume goes with steps alone, not with {others}")
        values = {RENAMED.get(key, key): value for key, value in read_toml(path).items()}
        values["run"] = str(folder)  # it may have been moved
        return cls(make_settings({**values, **changes}, f"{path}: "))

    def begin(self, step):
        """Keep the settings, and continue the logs from a step."""
        self._write_settings()
        self.logs = RunLogs(self.folder, step, self.settings.tensorboard)

    def close(self):
        """Let others have the folder."""
        if self.logs is not None:
            self.logs.close()
        self._file_lock.release()

    def steps(self):
        """The steps of which there is a checkpoint, in order."""
        return checkpoint_steps(self.folder)

    def checkpoint(self, step):
        """The folder of a step's checkpoint."""
        return checkpoint_folder(self.folder, step)

    def save(self, trainer):
        """Write the checkpoint of a step, unless it is there, and remove those not to be kept."""
        folder = self.checkpoint(trainer.step)
        if not folder.exists():
            tokenizer = trainer.model.tokenizer and trainer.model.tokenizer.description
            save(folder, trainer.model.params, tokenizer, trainer.state())
        keep = {*self.steps()[-self.settings.keep :], best_step(self.folder)}
        for old in set(self.steps()) - keep:
            remove(self.checkpoint(old))

    def _write_settings(self):
        with written(self.folder / SETTINGS) as file:
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
        """Remove what a process that was killed has left half written."""
        for folder in (self.folder, self.folder / "samples", self.folder / CHECKPOINTS):
            for left in folder.glob(f"*{PARTIAL}"):
                try:
                    left.unlink() if left.is_file() else shutil.rmtree(left)
                except OSError as error:
                    raise FileError(f"{left}: cannot be removed: {error.strerror}") from error


def check_disk(s, need):
    """Refuse a run by these Settings whose checkpoints, by its Estimate, do not fit on the disk."""
    checkpoint = need.parameters + need.moments
    free = shutil.disk_usage(nearest_existing_parent(s.run)).free
    more = max(1, s.keep + 2 - len(checkpoint_steps(s.run)))
    if checkpoint * more > free:
        raise ArgumentError(
            f"run: {more} checkpoints of {checkpoint / 1e9:.2f} GB (those to keep, the best and the"
            f" one being written) do not fit into the {free / 1e9:.2f} GB free in {s.run}"
        )


def nearest_existing_parent(path):
    """The innermost folder on the way to path that is there already."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if os.path.isdir(folder))

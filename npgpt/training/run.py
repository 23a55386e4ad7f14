"""A run's folder: its settings, logs, curve, samples and checkpoints, and one process at a time.

It holds settings.toml, log.jsonl, main.log (in llm.c's format), loss.png, samples/, lock and
checkpoints/, where each step_00000500/ is a checkpoint.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from npgpt.core.parameters import count_parameters
from npgpt.errors import ArgumentError, FileError
from npgpt.files import opened, written
from npgpt.formats.run_checkpoint import (
    CHECKPOINTS,
    PARTIAL,
    best_step,
    checkpoint_folder,
    checkpoint_steps,
    remove,
    save,
)
from npgpt.model.optimizer import OPTIMIZERS
from npgpt.training.settings import RENAMED, as_toml, make_settings, read_toml


class Run:
    """The folder of one run, locked while this process has it."""

    def __init__(self, folder, settings=None, **changes):
        """Make a new run with these Settings or, without them, open the one that is there.

        It can be opened with another number of `steps` than it had, but with no other changes.
        """
        self.folder = Path(folder)
        self.checkpoints, self.samples = self.folder / CHECKPOINTS, self.folder / "samples"
        path = self.folder / "settings.toml"
        if settings is not None and os.path.exists(path):
            raise ArgumentError(
                f"run: {folder} holds a run already: go on with it by --resume {folder},"
                " or name another folder"
            )
        if settings is None and not os.path.exists(path):
            raise FileError(f"{folder}: no run to go on with: it has no settings.toml")
        if changes.keys() - {"steps"}:
            others = ", ".join(sorted(changes.keys() - {"steps"}))
            raise ArgumentError(f"resume goes with steps alone, not with {others}")
        if settings is None:
            changes["run"] = str(folder)  # it may have been moved
            values = {RENAMED.get(key, key): value for key, value in read_toml(path).items()}
            settings = make_settings({**values, **changes}, f"{path}: ")
            new = False
        else:
            new = True
        if settings.tensorboard:
            tensorboard()
        self.settings, self.board = settings, None
        self._lock()
        try:
            if new:
                self._write_settings()
            self._sweep()
        except BaseException:
            self.close()
            raise

    def _write_settings(self):
        with written(self.folder / "settings.toml") as file:
            file.write(as_toml(self.settings).encode())

    def _sweep(self):
        """Remove what a process that was killed has left half written."""
        for folder in (self.folder, self.samples, self.checkpoints):
            for left in folder.glob(f"*{PARTIAL}"):
                try:
                    left.unlink() if left.is_file() else shutil.rmtree(left)
                except OSError as error:
                    raise FileError(f"{left}: cannot be removed: {error.strerror}") from error

    def _lock(self):
        from filelock import FileLock, Timeout

        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.samples.mkdir(exist_ok=True)
            self._file_lock = FileLock(self.folder / "lock", timeout=0)
            self._file_lock.acquire()
        except Timeout as error:
            raise FileError(f"{self.folder}: in use by another process") from error
        except OSError as error:
            raise FileError(
                f"{self.folder}: cannot be written: {error.strerror or error}"
            ) from error

    def close(self):
        """Let others have the folder."""
        if self.board is not None:
            self.board.close()
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

    def log_update(self, update, tokens):
        """Log an Update of so many tokens."""
        speed = round(tokens / update.seconds, 1)
        self.log(
            {**update._asdict(), "seconds": round(update.seconds, 6), "tokens_per_second": speed}
        )

    def log(self, entry):
        """Add a line to log.jsonl and, in llm.c's words, to main.log."""
        self._append("log.jsonl", json.dumps(entry))
        if self.board is not None:
            for name in entry.keys() - {"step"}:
                self.board.add_scalar(name, entry[name], entry["step"])
        if "val_loss" in entry:
            self._append("main.log", f"s:{entry['step']} tel:{entry['val_loss']:.4f}")
        else:  # llm.c counts from 0
            self._append(
                "main.log",
                f"s:{entry['step'] - 1} trl:{entry['loss']:.4f}"
                f" lr:{entry['lr']:.6f} norm:{entry['norm']:.2f}",
            )

    def add_sample(self, step, text):
        """Write a step's sample to a file of its own."""
        with written(self.samples / f"step_{step:08d}.txt") as file:
            file.write(text.encode("utf-8", "replace"))

    def begin(self, step):
        """Go on from a step: keep the settings, and the logs without what came after it."""
        self._write_settings()
        self._keep("log.jsonl", lambda line: step > 0 and json.loads(line)["step"] <= step)
        self._keep("main.log", lambda line: step > 0 and main_log_step(line) <= step)
        if self.settings.tensorboard:
            self.board = tensorboard()(str(self.folder / "tensorboard"), purge_step=step + 1)

    def _append(self, name, text):
        path = self.folder / name
        try:
            with open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text + "\n")
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _keep(self, name, wanted):
        path = self.folder / name
        if path.exists():
            kept = []
            with opened(path) as (file, _):
                lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
            for line in lines:  # without half a line, which a process that was killed has left
                with suppress(ValueError, KeyError, TypeError, IndexError):
                    if line.endswith("\n") and wanted(line):
                        kept.append(line)
            with written(path) as file:
                file.write("".join(kept).encode())


def check_disk(s, config):
    """Refuse a run by these Settings whose checkpoints do not fit on the disk."""
    parameters = 4 * count_parameters(config)
    checkpoint = parameters + OPTIMIZERS[s.optimizer].state_bytes(config)
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


def tensorboard():
    """The class that writes TensorBoard's files."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ArgumentError(
            "tensorboard needs the extra: pip install 'npgpt[tensorboard]'"
        ) from error
    return SummaryWriter


def main_log_step(line):
    """The number of updates after which a line of main.log was written."""
    number, what = line.split()[:2]
    return int(number.removeprefix("s:")) + what.startswith("trl:")

"""A run's logs: log.jsonl, main.log (in llm.c's format), samples/ and TensorBoard's files."""

import json
import os
import sys
from contextlib import contextmanager, suppress

from npgpt.errors import ArgumentError, FileError
from npgpt.files import atomic_write, open_for_reading
from npgpt.wording import install_extra


class RunLogs:
    """The logs in the folder of a run."""

    def __init__(self, folder, step, tensorboard=False, validated=True):
        """Continue the logs from a step; later entries are dropped.

        So is the validation after this step unless it was validated: then it is done once more, as
        a process that is killed between its log and its checkpoint leaves it.
        """
        self.folder, self.board, self.warned = folder, None, set()

        def is_kept(at, is_validation):
            return 0 < step >= at and (validated or at < step or not is_validation)

        def is_kept_in_log(line):
            entry = json.loads(line)
            return is_kept(entry["step"], "val_loss" in entry)

        self._filter_log("log.jsonl", is_kept_in_log)
        self._filter_log("main.log", lambda line: is_kept(main_log_step(line), " tel:" in line))
        if tensorboard:
            self.board = summary_writer_class()(str(folder / "tensorboard"), purge_step=step + 1)

    def close(self):
        """Write what TensorBoard's writer still holds."""
        if self.board is not None:
            self.board.close()

    def update(self, update, tokens):
        """Log an Update that processed `tokens` tokens."""
        speed = round(tokens / update.seconds, 1)
        self._log(
            {**update._asdict(), "seconds": round(update.seconds, 6), "tokens_per_second": speed},
            # llm.c counts from 0
            f"s:{update.step - 1} trl:{update.loss:.4f} lr:{update.lr:.6f} norm:{update.norm:.2f}",
        )

    def validation(self, step, val_loss, bits_per_byte=None):
        """Log the validation loss after a step, also in bits per byte where that is known."""
        entry = {"step": step, "val_loss": val_loss}
        if bits_per_byte is not None:
            entry["bits_per_byte"] = bits_per_byte
        self._log(entry, f"s:{step} tel:{val_loss:.4f}")

    def has_sample(self, step):
        """Whether a step's sample has been written."""
        return os.path.exists(self._sample_path(step))

    def _sample_path(self, step):
        return self.folder / "samples" / f"step_{step:08d}.txt"

    def sample(self, step, text):
        """Write a step's sample to a file of its own."""
        path = self._sample_path(step)
        with self._warning(path), atomic_write(path) as file:
            file.write(text.encode("utf-8", "replace"))

    @contextmanager
    def _warning(self, path):
        """Context that turns an error of writing into a warning: training is worth more than a log.

        Each file is warned of once.
        """
        try:
            yield
        except (OSError, FileError) as error:
            if path not in self.warned:
                self.warned.add(path)
                reason = error if isinstance(error, FileError) else error.strerror or error
                with suppress(OSError):
                    print(f"warning: {path}: cannot be written: {reason}", file=sys.stderr)

    def _log(self, entry, line):
        """Append an entry to log.jsonl and a line, in llm.c's format, to main.log."""
        self._append("log.jsonl", json.dumps(entry))
        self._append("main.log", line)
        if self.board is not None:
            for name in entry.keys() - {"step"}:
                self.board.add_scalar(name, entry[name], entry["step"])

    def _append(self, name, text):
        path = self.folder / name
        with (
            self._warning(path),
            open(path, "a", encoding="utf-8", errors="surrogateescape") as file,
        ):
            file.write(text + "\n")

    def _filter_log(self, name, wanted):
        """Keep only the complete lines that wanted(line) is true for."""
        path = self.folder / name
        if os.path.lexists(path):
            kept = []
            with open_for_reading(path) as (file, _):
                lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
            for line in lines:  # without a last line that a killed process left incomplete
                with suppress(ValueError, KeyError, TypeError, IndexError, RecursionError):
                    if line.endswith("\n") and wanted(line):
                        kept.append(line)
            with atomic_write(path) as file:
                file.write("".join(kept).encode())


def summary_writer_class():
    """The class that writes TensorBoard's files; ArgumentError where it is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ArgumentError(
            f"tensorboard needs the package tensorboardX: {install_extra('tensorboard')}"
        ) from error
    return SummaryWriter


def main_log_step(line):
    """The number of updates done when a line of main.log was written."""
    number, what = line.split()[:2]
    return int(number.removeprefix("s:")) + what.startswith("trl:")

"""A run's logs: log.jsonl, main.log (in llm.c's format), samples/ and TensorBoard's files."""

import json
from contextlib import suppress

from npgpt.errors import ArgumentError, FileError
from npgpt.files import opened, written


class RunLogs:
    """The logs in the folder of a run."""

    def __init__(self, folder, step, tensorboard=False):
        """Continue the logs from a step: what came after it is dropped."""
        self.folder, self.board = folder, None
        self._keep("log.jsonl", lambda line: step > 0 and json.loads(line)["step"] <= step)
        self._keep("main.log", lambda line: step > 0 and main_log_step(line) <= step)
        if tensorboard:
            self.board = summary_writer()(str(folder / "tensorboard"), purge_step=step + 1)

    def close(self):
        """Write what TensorBoard's writer still holds."""
        if self.board is not None:
            self.board.close()

    def update(self, update, tokens):
        """Log an Update of so many tokens."""
        speed = round(tokens / update.seconds, 1)
        self._log(
            {**update._asdict(), "seconds": round(update.seconds, 6), "tokens_per_second": speed},
            # llm.c counts from 0
            f"s:{update.step - 1} trl:{update.loss:.4f} lr:{update.lr:.6f} norm:{update.norm:.2f}",
        )

    def validation(self, step, val_loss):
        """Log the validation loss after a step."""
        self._log({"step": step, "val_loss": val_loss}, f"s:{step} tel:{val_loss:.4f}")

    def sample(self, step, text):
        """Write a step's sample to a file of its own."""
        with written(self.folder / "samples" / f"step_{step:08d}.txt") as file:
            file.write(text.encode("utf-8", "replace"))

    def _log(self, entry, line):
        self._append("log.jsonl", json.dumps(entry))
        self._append("main.log", line)
        if self.board is not None:
            for name in entry.keys() - {"step"}:
                self.board.add_scalar(name, entry[name], entry["step"])

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


def summary_writer():
    """The class that writes TensorBoard's files, or ArgumentError where it is not installed."""
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

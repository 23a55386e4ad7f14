"""The training loop: updates, with validation, samples and checkpoints in between."""

import importlib.util
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress

from npgpt.errors import FileError, NpgptError, TrainingError
from npgpt.training.progress import Progress

# Ctrl-C; the end that kill asks for; a terminal that is closed, which Windows does not tell of
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
SAME_SIGNAL = 1.0  # seconds within which a second signal counts as the first, sent twice
REDRAW = 20.0  # seconds after which the picture of the losses is drawn anew: it takes half a second


def train_loop(run, trainer, quiet=False):
    """Train until the run is done or a signal comes -> the last Update or None, the signal or 0.

    The final state is saved as a checkpoint. Raises TrainingError where the loss is NaN or
    infinite, after saving the last finite state. Whatever else ends the run, as a validation
    without enough memory or a second Ctrl-C, what has been trained is saved first. With quiet
    nothing is printed. Of several ranks, each runs this loop, in step; where one fails alone,
    nothing is saved.
    """
    s, update, comm, ended_by = run.settings, None, trainer.comm, 0
    progress = Progress(trainer.step, s.steps, s.tokens_per_step, s.log_every, quiet)
    drawn = time.monotonic()
    with closing(progress), stop_on_signal() as stopped:
        try:
            # of a resumed run what was still due
            validate_and_sample(run, trainer, progress, not run.logs.has_sample(trainer.step))
            if trainer.step:
                run.save(trainer)
            while not (trainer.done or (ended_by := signal_of_any(comm, stopped))):
                update = trainer.update()
                run.logs.update(update, s.tokens_per_step)
                progress.update(update)
                due = is_due(s.checkpoint_every, trainer.step)
                if due:  # before anything that may fail
                    run.save(trainer)
                if validate_and_sample(run, trainer, progress) or due:
                    run.save(trainer)
                    if time.monotonic() - drawn > REDRAW:
                        draw_loss_curve(run, progress)
                        drawn = time.monotonic()
        except TrainingError as error:
            raise TrainingError(f"{error}; {save_if_finite(run, trainer)}") from error
        except BaseException:
            if trainer.step and trainer.updates_whole and comm.size == 1:
                with suppress(Exception):  # the first error is the one to be told
                    run.save(trainer)
            raise
        if trainer.step:
            run.save(trainer)
        draw_loss_curve(run, progress)
    return update, ended_by


def signal_of_any(comm, stopped):
    """The signal that any rank has received, or 0."""
    return int(comm.gather([stopped[0] if stopped else 0]).max())


def validate_and_sample(run, trainer, progress, may_sample=True):
    """Validate and, if it may, sample if due -> whether the validation loss is the best so far."""
    s, step, is_best, writes = run.settings, trainer.step, False, trainer.comm.rank == 0
    if trainer.data.val and trainer.val_loss is None and is_due(s.val_every, step, s.steps):
        val_loss = trainer.validate()
        is_best = trainer.validations_since_best == 0 and step > 0
        bits = trainer.bits_per_byte if writes else None
        run.logs.validation(step, val_loss, bits)
        shown = "" if bits is None else f", {bits:.4f} bits per byte"
        progress.say(f"step {step}: validation loss {val_loss:.4f}{shown}")
    if writes and may_sample and is_due(s.sample_every, step, s.steps):
        text = trainer.sample()
        run.logs.sample(step, text)
        progress.say(f"sample at step {step}:\n{text}")
    return is_best


def is_due(every, step, last=None):
    """Whether step is a multiple of `every`, or the last one; never if `every` is 0."""
    return every > 0 and (step % every == 0 or step == last)


def save_if_finite(run, trainer):
    """Save the state before a failed update if it is finite -> a message about it."""
    if trainer.step and trainer.weights_finite:
        with suppress(FileError):  # the weights are not finite either
            run.save(trainer)
    steps = run.checkpoint_steps()
    if not steps:
        return "no checkpoint was saved"
    return f"the last good state is {run.checkpoint_folder(steps[-1])}"


def draw_loss_curve(run, progress):
    """Draw the run's loss.png, where matplotlib is installed; a failure does not end the run.

    A Follower's folder has no logs to draw.
    """
    if run.logs.folder and importlib.util.find_spec("matplotlib"):
        from npgpt.training.curves import draw_run

        try:
            draw_run(run.folder)
        except NpgptError as error:
            progress.say(f"loss.png was not drawn: {error}")


@contextmanager
def stop_on_signal():
    """Yield a list that receives the first signal of STOPPING; a later one is a KeyboardInterrupt.

    Within SAME_SIGNAL seconds it is taken for the same one: `timeout` sends it twice.
    """
    stopped, since = [], []

    def stop(number, frame):
        if stopped:
            if time.monotonic() - since[0] > SAME_SIGNAL:
                raise KeyboardInterrupt
            return
        stopped.append(number)
        since.append(time.monotonic())
        with suppress(OSError, RuntimeError):  # stderr is closed, or a print was interrupted
            print("\nfinishing the step; interrupt again to stop immediately", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

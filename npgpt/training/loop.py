"""A run from where it is to its end: updates, and between them validation, samples, checkpoints."""

import importlib.util
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress

from npgpt.errors import ArgumentError, FileError, NpgptError, TrainingError
from npgpt.model.text import generate_text
from npgpt.training.progress import Progress

SAME_SIGNAL = 1.0  # seconds within which a second one is the first, sent twice


def train_loop(run, trainer):
    """Train until the run is done or a signal comes -> the last Update or None, the signal or 0.

    The state it ends with is a checkpoint. Raises TrainingError where the loss is NaN or infinite;
    then the state before that is one.
    """
    s, update = run.settings, None
    progress = Progress(trainer.step, s.steps, s.accumulation * s.B * s.T)
    with closing(progress), signals() as stopped:
        try:
            if trainer.step == 0:
                validate_and_sample(run, trainer, progress)
            while not (trainer.done or stopped):
                update = trainer.update()
                run.logs.update(update, s.accumulation * s.B * s.T)
                progress.update(update)
                is_best = validate_and_sample(run, trainer, progress)
                if is_best or is_time(s.checkpoint_every, trainer.step):
                    run.save(trainer)
                    draw(run, progress)
        except TrainingError as error:
            raise TrainingError(f"{error}; {keep_finite(run, trainer)}") from error
        if trainer.step:
            run.save(trainer)
        draw(run, progress)
    return update, stopped[0] if stopped and not trainer.done else 0


def validate_and_sample(run, trainer, progress):
    """Validate and sample where it is time -> whether the validation loss is the best so far."""
    s, step, is_best = run.settings, trainer.step, False
    if trainer.data.val and is_time(s.val_every, step, s.steps):
        val_loss = trainer.validate()
        is_best = trainer.validations_since_best == 0 and step > 0
        run.logs.validation(step, val_loss)
        progress.say(f"step {step}: validation loss {val_loss:.4f}")
    if is_time(s.sample_every, step, s.steps):
        try:
            text = generate_text(trainer.model, s.sample_prompt, s.sample_tokens, [s.seed, step])
        except ArgumentError as error:  # its logits are not finite
            trainer.weights_finite = False
            raise TrainingError(f"no sample after step {step}: {error}") from error
        run.logs.sample(step, text)
        progress.say(text)
    return is_best


def is_time(every, step, last=None):
    """Whether a step is one of those that come every so many, or the last; 0: none is."""
    return every > 0 and (step % every == 0 or step == last)


def keep_finite(run, trainer):
    """Keep the state before an update that failed, if it is finite -> what to say of it."""
    if trainer.step and trainer.weights_finite:
        with suppress(FileError):  # the weights are not finite either
            run.save(trainer)
    steps = run.steps()
    return f"the last good state is {run.checkpoint(steps[-1])}" if steps else "nothing is kept"


def draw(run, progress):
    """Draw the run's loss.png, where matplotlib is installed; a failure does not end the run."""
    if importlib.util.find_spec("matplotlib"):
        from npgpt.training.curves import draw_run

        try:
            draw_run(run.folder)
        except NpgptError as error:
            progress.say(f"no picture: {error}")


@contextmanager
def signals():
    """Inside, a first SIGINT or SIGTERM goes into the list given; a later one interrupts at once.

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
        with suppress(OSError, RuntimeError):  # nobody reads any more, or it interrupted a print
            print("\nfinishing the step; once more ends at once", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""A run from where it is to its end: updates, and between them validation, samples, checkpoints."""

import importlib.util
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress

from npgpt.errors import ArgumentError, FileError, NpgptError, TrainingError
from npgpt.reports import Reports
from npgpt.sample import Text, encoded

TWICE = 1.0


def go(run, trainer):
    """Train until the run is done or a signal comes -> the last Update or None, the signal or 0.

    The state it ends with is a checkpoint. Raises TrainingError where the loss is no number any
    more; then the state before that is one.
    """
    s, update = run.settings, None
    reports = Reports(trainer.step, s.steps, trainer.accumulation * s.B * s.T)
    with closing(reports), signals() as stopped:
        try:
            if trainer.step == 0:
                between(run, trainer, reports)
            while not (trainer.done or stopped):
                update = trainer.update()
                run.log_update(update, reports.tokens)
                reports.update(update)
                better = between(run, trainer, reports)
                if better or is_time(s.checkpoint_every, trainer.step):
                    run.save(trainer)
                    draw(run, reports)
        except TrainingError as error:
            raise TrainingError(f"{error}; {keep_good(run, trainer)}") from error
        if trainer.step:
            run.save(trainer)
        draw(run, reports)
    return update, stopped[0] if stopped and not trainer.done else 0


def between(run, trainer, reports):
    """Validate and sample where it is time -> whether the validation loss is the best so far."""
    s, step, better = run.settings, trainer.step, False
    if trainer.val_tokens and is_time(s.val_every, step, s.steps):
        val_loss = trainer.validate()
        better = trainer.worse == 0 and step > 0
        run.log({"step": step, "val_loss": val_loss})
        reports.say(f"step {step}: validation loss {val_loss:.4f}")
    if is_time(s.sample_every, step, s.steps):
        try:
            text = sample(trainer.model, s, step)
        except ArgumentError as error:  # its logits are no numbers
            trainer.good = False
            raise TrainingError(f"no sample after step {step}: {error}") from error
        run.add_sample(step, text)
        reports.say(text)
    return better


def is_time(every, step, last=None):
    """Whether a step is one of those that come every so many, or the last; 0: none is."""
    return every > 0 and (step % every == 0 or step == last)


def sample(model, s, step):
    """A text that goes on from the settings' prompt."""
    prompt = encoded(s.sample_prompt, model)
    out = model.generate([prompt], s.sample_tokens, seed=[s.seed, step])
    text = Text(model.tokenizer)
    return "".join(text.add(token) for token in out[0, 1:].tolist()) + text.end()


def keep_good(run, trainer):
    """Keep the state before an update that cannot be, if it is good -> what to say of it."""
    if trainer.step and trainer.good:
        with suppress(FileError):  # the weights are no numbers either
            run.save(trainer)
    steps = run.steps()
    return f"the last good state is {run.checkpoint(steps[-1])}" if steps else "nothing is kept"


def draw(run, reports):
    """Draw the run's loss.png, where matplotlib is installed; a failure does not end the run."""
    if importlib.util.find_spec("matplotlib"):
        from npgpt.plot import draw_run

        try:
            draw_run(run.folder)
        except NpgptError as error:
            reports.say(f"no picture: {error}")


@contextmanager
def signals():
    """Inside, a first SIGINT or SIGTERM goes into the list given; a later one interrupts at once.

    Within TWICE seconds it is taken for the same one, as `timeout` sends it twice.
    """
    stopped, since = [], []

    def stop(number, frame):
        if stopped:
            if time.monotonic() - since[0] > TWICE:
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

"""A run from where it is to its end: updates, and between them validation, samples, checkpoints."""

import importlib.util
import signal
import sys
import threading
from contextlib import closing, contextmanager, suppress

import numpy as np

from npgpt.errors import FileError, TrainingError
from npgpt.reports import Reports


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
                if better or (s.checkpoint_every and trainer.step % s.checkpoint_every == 0):
                    run.save(trainer)
        except TrainingError as error:
            raise TrainingError(f"{error}; {keep_good(run, trainer)}") from error
        if trainer.step:
            run.save(trainer)
        draw(run, reports)
    return update, stopped[0] if stopped else 0


def between(run, trainer, reports):
    """Validate and sample where it is time -> whether the validation loss is the best so far."""
    s, step, better = run.settings, trainer.step, False
    if trainer.val_tokens and s.val_every and (step % s.val_every == 0 or step == s.steps):
        val_loss = trainer.validate()
        better = trainer.worse == 0 and step > 0
        run.log({"step": step, "val_loss": val_loss})
        reports.say(f"step {step}: validation loss {val_loss:.4f}")
        draw(run, reports)
    if s.sample_every and (step % s.sample_every == 0 or step == s.steps):
        text = sample(trainer.model, s, step)
        run.add_sample(step, text)
        reports.say(text)
    return better


def sample(model, s, step):
    """A text that goes on from the settings' prompt."""
    prompt = [model.tokenizer.eot, *model.tokenizer.encode(s.sample_prompt)]
    out = model.generate(np.array([prompt]), s.sample_tokens, seed=[s.seed, step])
    return model.tokenizer.decode(out[0, 1:])


def keep_good(run, trainer):
    """Keep the state before an update that cannot be -> what to say of it."""
    if trainer.step:
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
        except FileError as error:
            reports.say(f"no picture: {error}")


@contextmanager
def signals():
    """Inside, a first SIGINT or SIGTERM goes into the list given; a second interrupts at once."""
    stopped = []

    def stop(number, frame):
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)
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

"""How a running training run shows: a bar on a terminal, plain lines elsewhere."""

import sys
from contextlib import suppress

LINES = 100  # about as many lines a run, where there is no terminal


class Progress:
    """Shows the updates of a run as they come."""

    def __init__(self, step, steps, tokens):
        """From `step` on, of so many steps of so many tokens each."""
        from tqdm import tqdm

        self.steps, self.tokens = steps, tokens
        self.seconds = None  # of a step, as they were of late
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(initial=step, total=steps, unit="step", dynamic_ncols=True)

    def update(self, update):
        """Show one update."""
        before = self.seconds or update.seconds
        self.seconds = 0.9 * before + 0.1 * update.seconds
        rate = self.tokens / self.seconds
        numbers = (
            f"loss {update.loss:.4f}, lr {update.lr:.2e}, norm {update.norm:.2f}, {rate:,.0f} tok/s"
        )
        if update.skipped:
            self.say(f"step {update.step}: skipped, an outlier: {numbers}")
        if self.bar is not None:
            with suppress(OSError):
                self.bar.set_postfix_str(numbers, refresh=False)
                self.bar.update()
        elif update.step % max(1, self.steps // LINES) == 0 or update.step in (1, self.steps):
            left = (self.steps - update.step) * self.seconds
            self.say(f"step {update.step}/{self.steps}: {numbers}, {clock(left)} left")

    def say(self, text):
        """Print a line, above the bar. That nobody reads it is no reason to lose the run."""
        with suppress(OSError):
            if self.bar is not None:
                self.bar.write(text, file=sys.stdout)
            else:
                print(text)

    def close(self):
        """Leave the terminal as it was."""
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()


def clock(seconds):
    """Seconds as h:mm:ss."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

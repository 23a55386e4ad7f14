"""The progress of a training run: a bar on a terminal, plain lines elsewhere."""

import sys
from contextlib import suppress

BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # tqdm's, with a time left of ours
LINES = 100  # about how many lines per run, without a terminal


class Progress:
    """Shows the updates of a run as they come; with quiet, nothing."""

    def __init__(self, step, steps, tokens_per_step, log_every=0, quiet=False):
        """Start at `step` of `steps`, each of tokens_per_step tokens.

        With log_every there is a line every so many steps, on a terminal too.
        """
        from tqdm import tqdm

        self.steps, self.tokens_per_step = steps, tokens_per_step
        self.log_every, self.quiet = log_every, quiet
        self.seconds_per_step = None  # exponential moving average, but for the first: it compiles
        self.has_begun = False
        self.bar = None
        if sys.stderr.isatty() and not quiet:
            self.bar = tqdm(initial=step, total=steps, bar_format=BAR, dynamic_ncols=True)

    def update(self, update):
        """Show one update."""
        if self.has_begun:
            before = self.seconds_per_step or update.seconds
            self.seconds_per_step = 0.9 * before + 0.1 * update.seconds
        self.has_begun = True
        numbers = f"loss {update.loss:.4f}, lr {update.lr:.2e}, norm {update.norm:.2f}"
        speed = self._speed(self.steps - update.step)
        if update.skipped:
            self.say(f"step {update.step}: skipped, an outlier: {numbers}")
        if self.bar is not None:
            with suppress(OSError):
                self.bar.set_postfix_str(numbers + speed, refresh=False)
                self.bar.update()
        every = self.log_every or (0 if self.bar else max(1, self.steps // LINES))
        if every and (update.step % every == 0 or update.step in (1, self.steps)):
            self.say(f"step {update.step}/{self.steps}: {numbers}{speed}")

    def _speed(self, steps_left):
        """Tokens a second and the time that is left, in words; nothing as long as it is unknown."""
        if self.seconds_per_step is None:
            return ""
        rate = self.tokens_per_step / self.seconds_per_step
        return f", {rate:,.0f} tok/s, {format_duration(steps_left * self.seconds_per_step)} left"

    def say(self, text):
        """Print a line, above the bar; a closed output must not end the run."""
        if self.quiet:
            return
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


def format_duration(seconds):
    """Format seconds as h:mm:ss."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"

"""Is a number far above those before it? Its z-score over a window, as llm.c's trainer has it."""

import math
from collections import deque

WINDOW = 128


class Outliers:
    """The last WINDOW numbers; `values` is all that there is to keep of it."""

    def __init__(self, values=()):
        self.values = deque(values, maxlen=WINDOW)

    def z(self, value):
        """Take the value in -> (value - mean) / standard deviation, of the window with it.

        0 until there were WINDOW before it: what is usual is not known yet.
        """
        known = len(self.values) == WINDOW
        self.values.append(value)
        if not known:
            return 0.0
        mean = sum(self.values) / WINDOW
        variance = sum((x - mean) ** 2 for x in self.values) / WINDOW
        return (value - mean) / math.sqrt(variance) if variance > 0 else 0.0

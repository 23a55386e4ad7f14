"""Numbers as the cells of Markdown tables."""

import math
from statistics import median, quantiles

SPREAD = 4  # the fewest values whose quartiles say something


def number(value):
    """A number to three digits."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:.{max(0, digits)}f}"


def spread(values, scale=1.0):
    """The median of some values and, of enough, their lower and upper quartile."""
    middle = number(scale * median(values))
    if len(values) < SPREAD:
        return middle
    low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{middle} ({number(scale * low)} to {number(scale * high)})"


def table(columns, rows):
    """The lines of a table whose first column is text and whose others are numbers."""
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]

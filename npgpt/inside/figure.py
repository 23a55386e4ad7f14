"""What all pictures share: their colours, and an empty matplotlib Figure."""

from npgpt.errors import ArgumentError
from npgpt.wording import install_extra

# Okabe and Ito's colours, which the colour-blind can tell apart, but for yellow, faint on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width, height):
    """An empty matplotlib Figure, sizes in inches; ArgumentError where there is no matplotlib."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which would change the whole process
    except ImportError as error:
        raise ArgumentError(f"a picture needs matplotlib: {install_extra('plot')}") from error
    return Figure(figsize=(width, height), dpi=120, layout="constrained")

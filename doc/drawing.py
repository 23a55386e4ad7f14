"""What the tutorials' drawings share: cards, arrows, grids of numbers and plain charts, as SVG.

The background is transparent. Text stands on light cards of its own, or is of a grey between black
and white, so that a drawing can be read on a white page and on a nearly black one.
"""

import json
import re
from io import StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

INK = "#15181C"  # on cards
GREY = "#7A7F87"  # without a card: lines, and text at contrast 4 on white and on black
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's
PINK, SKY = "#CC79A7", "#56B4E9"


def tint(colour, strength=0.16):
    """The colour mixed with white."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def canvas(width, height):
    """A Figure and axes without an axis: sizes in inches, from the top left corner, y downwards."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def note(axes, x, y, text, size=10, colour=GREY, **options):
    """Text without a card, by its middle unless the options say otherwise."""
    options = {"ha": "center", "va": "center", "linespacing": 1.35, **options}
    axes.text(x, y, text, fontsize=size, color=colour, **options)


def box(axes, x, y, text, colour=GREY, width=1.2, height=0.5, size=11, dashed=False, **options):
    """A card with its middle at (x, y)."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, linewidth=1.5, zorder=3,
            boxstyle="round,pad=0,rounding_size=0.08", facecolor=tint(colour), edgecolor=colour,
            linestyle="--" if dashed else "-",
        )
    )  # fmt: skip
    note(axes, x, y, text, size, INK, zorder=4, **options)


def arrow(axes, start, end, label="", colour=GREY, at=0.5, bend=0.0, size=10, line="-"):
    """An arrow between two points; the label stands on a card at this part of the straight way."""
    style = {"arrowstyle": "-|>,head_length=0.5,head_width=0.22", "color": colour, "linewidth": 1.6}
    style |= {"linestyle": line, "shrinkA": 0, "shrinkB": 0}
    style |= {"connectionstyle": f"arc3,rad={bend}"} if bend else {}
    axes.annotate("", end, start, arrowprops=style, zorder=2)
    if label:
        x, y = (s + at * (e - s) for s, e in zip(start, end, strict=True))
        card = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": colour}
        note(axes, x, y, label, size, INK, family="monospace", bbox=card, zorder=5)


def grid(
    axes, x, y, rows, title="", colour=GREY, marked=(), cell=(0.52, 0.32), size=10, form=None,
    labels=(),
):  # fmt: skip
    """A table of numbers or words with its top left corner at (x, y), the title above it.

    marked holds the (row, column) of cells that are filled more strongly, form formats a number,
    labels stand on the left of the rows.
    """
    width, height = cell
    for i, label in enumerate(labels):
        at = y + (i + 0.5) * height
        note(axes, x - 0.08, at, label, size, family="monospace", ha="right")
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            left, top = x + j * width, y + i * height
            fill = tint(colour, 0.5 if (i, j) in marked else 0.12)
            axes.add_patch(
                Rectangle((left, top), width, height, facecolor=fill, edgecolor=colour, zorder=3)
            )
            text = value if form is None else format(value, form).replace("-", "\N{MINUS SIGN}")
            note(axes, left + width / 2, top + height / 2, text, size, INK, zorder=4)
    if title:
        note(axes, x, y - 0.08, title, size, family="monospace", ha="left", va="bottom")


def stack(axes, x, y, rows, apart, **options):
    """Grids of one row below each other, each a (label, values, colour); None: a gap of apart."""
    for row in rows:
        if row is None:
            y += apart
        else:
            label, values, colour = row
            grid(axes, x, y, [values], "", colour, labels=[label], **options)
            y += 0.36


def chart(height, panels=1, **options):
    """A Figure as wide as a page, and the axes of its chart, or of as many below each other."""
    figure = Figure(figsize=(5.2, height), layout="constrained")
    return figure, figure.subplots(panels, 1, **options)


def plain(axes, **labels):
    """A chart's axes in the grey that can be read on any page, and its labels."""
    axes.set(**labels)
    axes.set_facecolor("none")
    axes.grid(color=GREY, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(GREY)
    axes.tick_params(colors=GREY)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(GREY)
    legend = axes.get_legend()
    for text in legend.get_texts() if legend else ():
        text.set_color(GREY)


def save(figure, path):
    """Write the Figure as an SVG without a background, the same bytes each time."""
    written = StringIO()
    with rc_context({"svg.hashsalt": "npgpt"}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"\s*\n(?! *<)\s*", " ", written.getvalue())  # a path in a line, not in hundreds
    path.write_text(text.strip() + "\n", encoding="utf-8")


def write_samples(page, samples):
    """Write samples, dicts of numbers and arrays, into the page's JSON block, one per line."""
    lines = [
        json.dumps({name: np.asarray(value).tolist() for name, value in sample.items()})
        for sample in samples
    ]
    text = page.read_text(encoding="utf-8")
    block = re.compile(r'(<script type="application/json"[^>]*>\n).*?(</script>)', re.DOTALL)
    assert len(block.findall(text)) == 1, page
    json_text = "[\n" + ",\n".join(lines) + "\n]\n"
    page.write_text(block.sub(lambda at: at[1] + json_text + at[2], text), encoding="utf-8")

"""Draw what npgpt.inside computes: each function returns a matplotlib Figure.

The colours of a map go evenly from light to dark, so that it holds in grey and for the colour-
blind; where sign counts, 0 is white. Losses are drawn by npgpt.training.curves.
"""

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.inside.figure import COLOURS, new_figure

EVEN, SIGNED = "magma_r", "RdBu_r"
POINTS = 7  # of labels and of what stands in the cells
LINE, LETTER = 0.14, 0.075  # inches that they take
LONGEST = 10  # letters of a token that are shown


def heatmap(values, rows, columns, label, signed=False, log=False, text=None):
    """A map of values (R, C) with the names of its rows and columns; label says what they are.

    signed: colours tell values below 0 from those above. log: they go by the logarithm of positive
    values. text (R, C), or "values" for the values themselves, is written into the cells.
    """
    values = np.asanyarray(values)
    if isinstance(text, str):
        text = as_text(values)
    width = cell_width(text, values.shape[1])
    figure = new_figure(2.2 + width * values.shape[1], 1.0 + max(0.24 * len(values), 1.2))
    axes = figure.subplots()
    image = show(axes, values, rows, columns, scale(values, signed, log), signed, text)
    bar(figure, image, axes, label)
    return figure


def attention_maps(att, labels, heads=None):
    """The attention of one layer, att (NH, T, T), a map a head; labels are those of the T tokens.

    Row t is where position t looks and adds up to 1; the future, which it cannot see, is left
    empty. heads are the numbers of those to be drawn, if not all.
    """
    heads = list(range(len(att)) if heads is None else heads)
    if not heads or not all(head in range(len(att)) for head in heads):
        raise ArgumentError(f"heads must be some of 0 to {len(att) - 1}, not {heads}")
    across = min(len(heads), 4)
    down = -(-len(heads) // across)
    T = att.shape[-1]
    side = min(max(2.0, LINE * T), 6.0 if across == 1 else 3.5)
    figure = new_figure(side * across + 1.4, side * down + 0.9)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    future = np.triu(np.ones((T, T), bool), 1)
    for axes, head in zip(panels.flat, heads, strict=False):
        past = np.ma.masked_array(att[head], future)
        colours = scale(np.array([0.0, 1.0]))
        image = show(axes, past, labels, labels, colours, panels=(down, across))
        axes.set_facecolor("0.9")
        axes.set_title(f"head {head}", fontsize=9)
    for spare in range(len(heads), panels.size):
        panels.flat[spare].remove()
        panels.flat[spare - across].tick_params(labelbottom=True)  # it has none below any more
    bar(figure, image, list(panels.flat[: len(heads)]), "attention")
    figure.supxlabel("looked at", fontsize=9)
    figure.supylabel("position that looks", fontsize=9)
    return figure


def residual_norms(norms, places, labels):
    """The norms (P, T) of the residual stream at its places, from the bottom up, by position."""
    return heatmap(norms[::-1], places[::-1], labels, "norm of the residual stream", log=True)


def tensor_norms(norms, label="norm of the gradient"):
    """The norms that npgpt.inside.tensor_norms gives: a block's tensors by layer, and the others.

    The colours go by the logarithm.
    """
    stacked = {name: norm for name, norm in norms.items() if np.ndim(norm)}
    single = {name: norm for name, norm in norms.items() if not np.ndim(norm)}
    parts = [np.stack(list(stacked.values())), np.array(list(single.values()))[:, None]]
    L = parts[0].shape[1]
    figure = new_figure(3.2 + (0.5 if L <= 12 else 0.2) * (L + 1), 3.6)
    colours = scale(np.concatenate([part.ravel() for part in parts]), log=True)
    grid = figure.add_gridspec(len(stacked), 2, width_ratios=[L, 1])
    left, right = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[: len(single), 1])
    for axes, part, names in ((left, parts[0], stacked), (right, parts[1], single)):
        columns = range(L) if axes is left else [""]
        text = as_text(part) if L <= 12 else None
        image = show(axes, part, list(names), columns, colours, text=text)
    left.set_xlabel("layer", fontsize=9)
    bar(figure, image, [left, right], label)
    return figure


def logit_lens(words, probs, places, labels, targets=None):
    """The likeliest word at each place and position (P, T), over its probability (P, T).

    The first place is at the bottom, over the labels of the tokens that go in; targets, those of
    the tokens that come next, stand at the top, and words that are right are bold.
    """
    P, T = np.shape(probs)
    shown = [[cut(word) for word in row] for row in words[::-1]]
    figure = new_figure(2.4 + cell_width(shown, T) * T, 1.2 + 0.24 * P)
    axes = figure.subplots()
    colours = scale(np.array([0.0, 1.0]))
    image = show(axes, probs[::-1], places[::-1], labels, colours, text=shown)
    axes.set_xlabel("token", fontsize=9)
    if targets is not None:
        top = axes.secondary_xaxis("top")
        tick(top.xaxis, targets, T, every=1)
        top.set_xlabel("the next token", fontsize=9)
        right = np.array(words[::-1]) == np.array(targets)  # (P, T)
        for text, bold in zip(axes.texts, right.flat, strict=True):
            text.set_fontweight("bold" if bold else "normal")
    bar(figure, image, axes, "its probability")
    return figure


def layer_times(times):
    """The times that npgpt.inside.layer_times gives: a row a layer and pass, a mark a backend."""
    rows = [f"{layer} {way}" for layer in times["numpy"] for way in ("forward", "backward")]
    milliseconds = {
        name: 1e3 * np.array([seconds for pair in times[backend].values() for seconds in pair])
        for name, backend in (("textbook", "numpy"), ("kernels", "numba"))
    }  # each (R,)
    book, kernels = milliseconds.values()
    figure = new_figure(7, 0.9 + 0.26 * len(rows))
    axes = figure.subplots()
    y = np.arange(len(rows))[::-1]  # the first at the top
    axes.hlines(y, book, kernels, color="0.7", zorder=1)
    for (name, values), colour, marker in zip(milliseconds.items(), COLOURS, "os", strict=False):
        axes.scatter(values, y, s=36, color=colour, marker=marker, label=name)
    ratios = [f"{ratio:.2g}" for ratio in book / kernels]
    for at, text in zip([len(rows), *y], ["ratio", *ratios], strict=True):
        axes.annotate(text, (1.02, at), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds of a step, log scale", ylim=(-0.8, len(rows) - 0.2))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(y, rows)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def show(axes, values, rows, columns, colours, signed=False, text=None, panels=None):
    """Draw values (R, C) into axes, with names and text -> the image.

    panels (down, across) says that it is one of several, all with square cells.
    """
    R, C = values.shape
    for name, labels, count in (("rows", rows, R), ("columns", columns, C)):
        if len(labels) != count:
            raise ArgumentError(f"there must be {count} names of {name}, not {len(labels)}")
    image = axes.imshow(
        values, cmap=SIGNED if signed else EVEN, norm=colours, interpolation="nearest",
        aspect="equal" if panels else "auto",
    )  # fmt: skip
    width, height = axes.figure.get_size_inches()
    down, across = panels or (1, 1)
    tick(axes.xaxis, columns, C, every=-(-C * LINE * across // width))
    tick(axes.yaxis, rows, R, every=-(-R * LINE * down // height))
    if max(len(str(label)) for label in columns) > 2:
        axes.tick_params(axis="x", rotation=90)
    axes.spines[:].set_visible(False)
    if text is not None:
        *rgb, alpha = np.moveaxis(image.cmap(image.norm(values)), -1, 0)  # each (R, C)
        shades = np.tensordot((0.299, 0.587, 0.114), rgb, 1) + 1 - alpha  # what has none is white
        for at in np.ndindex(R, C):
            axes.text(
                at[1], at[0], plain(text[at[0]][at[1]]), ha="center", va="center",
                fontsize=POINTS, color="black" if shades[at] > 0.5 else "white",
            )  # fmt: skip
    return image


def bar(figure, image, axes, label):
    """The bar of the colours, beside one or several axes."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, NullFormatter

    colourbar = figure.colorbar(image, ax=axes)
    colourbar.set_label(label, fontsize=9)
    colourbar.ax.tick_params(labelsize=POINTS + 1)
    if isinstance(image.norm, LogNorm):
        few = image.norm.vmax / image.norm.vmin < 300
        colourbar.locator = LogLocator(subs=(1, 2, 5) if few else (1,))
        colourbar.formatter = "{x:g}"
        colourbar.ax.yaxis.set_minor_formatter(NullFormatter())


def tick(axis, labels, count, every):
    """Label every `every`-th cell along an axis."""
    at = range(0, count, max(1, int(every)))
    axis.set_ticks(at, [plain(cut(str(labels[i]), 32)) for i in at], fontsize=POINTS)
    axis.set_tick_params(length=0)


def scale(values, signed=False, log=False):
    """How values of any shape become colours; what is not finite, or not positive, has none."""
    from matplotlib.colors import CenteredNorm, LogNorm, Normalize

    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if signed:
        return CenteredNorm(halfrange=np.abs(values).max(initial=1e-30))
    lowest, highest = (values.min(), values.max()) if values.size else (1.0, 2.0)
    if lowest == highest:
        highest = lowest + (abs(lowest) or 1.0)
    return (LogNorm if log else Normalize)(lowest, highest)


def as_text(values):
    """values (R, C) as short texts."""
    return [[f"{value:.2g}" for value in row] for row in values]


def cell_width(text, columns):
    """Inches that a cell takes, with the longest of the texts (R, C) in it."""
    if text is None:
        return min(0.3, 7 / columns)
    return max(0.3, 0.1 + LETTER * max(len(str(word)) for row in text for word in row))


def cut(word, longest=LONGEST):
    """A word of a picture, shortened where it is longer."""
    return word if len(word) <= longest else word[: longest - 1] + "…"


def plain(word):
    """A word of which matplotlib sets no part as mathematics."""
    return str(word).replace("$", r"\$")

"""The pictures of what is inside a model: what stands where, and in which colours."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest

from npgpt import ArgumentError
from npgpt.inside.pictures import (
    attention_maps,
    heatmap,
    layer_times,
    logit_lens,
    residual_norms,
    tensor_norms,
)
from npgpt.wording import install_extra

pytest.importorskip("matplotlib")

LABELS = ["a", "$x$", "␣the", "_", "<|endoftext|>"]
NAMES = ["ln1w", "qkvw", "fcw"]


def drawn(figure):
    """Draws a Figure, which shows what is wrong with it -> its panels, and its colour bar."""
    figure.savefig(io.BytesIO(), format="png")
    *panels, bar = figure.axes
    return panels, bar


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]


@pytest.fixture
def att(rng):
    """Attention of six heads over five tokens."""
    att = np.tril(rng.random((6, 5, 5)) + 0.1)
    return att / att.sum(-1, keepdims=True)


def test_a_heatmap_has_the_values_under_their_names(rng):
    values = rng.standard_normal((2, 3))
    (panel,), bar = drawn(heatmap(values, ["up", "down"], [7, 8, 9], "what", text="values"))
    (image,) = panel.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert names(panel.xaxis) == ["7", "8", "9"] and names(panel.yaxis) == ["up", "down"]
    assert bar.get_ylabel() == "what"
    written = {text.get_position(): float(text.get_text()) for text in panel.texts}
    assert written == {
        (x, y): pytest.approx(values[y, x], rel=0.05, abs=0.01) for x in range(3) for y in range(2)
    }


def test_what_is_written_differs_from_what_is_below():
    (panel,), _ = drawn(heatmap(np.array([[0.0, 1.0]]), [""], "ab", "", text=[["low", "high"]]))
    assert [text.get_color() for text in panel.texts] == ["black", "white"]
    (panel,), _ = drawn(
        heatmap(np.array([[0.0, 9.0, 3.0]]), [""], "abc", "", log=True, text=["abc"])
    )
    assert [text.get_color() for text in panel.texts] == ["black", "white", "black"]


def test_the_colours_of_both_signs_are_as_strong():
    (panel,), _ = drawn(heatmap(np.array([[-1.0, 0.0, 4.0]]), [""], "abc", "", signed=True))
    image = panel.images[0]
    assert image.norm([-4.0, 0.0, 4.0]).tolist() == [0, 0.5, 1]
    low, middle, high = image.cmap([0.0, 0.5, 1.0])[:, :3]
    assert min(middle) > 0.9 and low[2] > low[0] and high[0] > high[2]


def test_the_even_map_goes_from_light_to_dark():
    (panel,), _ = drawn(heatmap(np.array([[0.0, 1.0]]), [""], "ab", ""))
    shades = panel.images[0].cmap(np.linspace(0, 1, 50))[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(shades) < 0).all() and shades[0] > 0.9 > 0.1 > shades[-1]


def test_a_logarithmic_map_leaves_out_what_has_no_logarithm():
    values = np.array([[1.0, 10.0, 100.0, 0.0, np.nan]])
    (panel,), _ = drawn(heatmap(values, [""], "abcde", "", log=True))
    shown = panel.images[0].norm(values)[0]
    assert shown[:3].tolist() == pytest.approx([0, 0.5, 1])
    assert shown.mask[3] and not np.isfinite(shown[4])


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.ones((2, 2))])
@pytest.mark.parametrize("options", [{}, {"signed": True}, {"log": True}])
def test_any_values_can_be_drawn(values, options):
    drawn(heatmap(values, "ab", "cd", "", text="values", **options))


def test_each_head_has_its_map_without_the_future(att):
    panels, bar = drawn(attention_maps(att, LABELS))
    assert [panel.get_title() for panel in panels] == [f"head {head}" for head in range(6)]
    for panel, head in zip(panels, att, strict=True):
        (image,) = panel.images
        shown = image.get_array()
        np.testing.assert_array_equal(shown.filled(-1), np.where(np.tri(5) > 0, head, -1))
        assert image.norm([0.0, 1.0]).tolist() == [0, 1]
    assert bar.get_ylabel() == "attention"


def test_the_tokens_stand_at_the_outer_maps(att):
    panels, _ = drawn(attention_maps(att, LABELS))
    shown = ["a", r"\$x\$", "␣the", "_", "<|endoftext|>"]
    assert [names(panel.yaxis) for panel in panels] == [shown, [], [], [], shown, []]
    below = [[], [], shown, shown, shown, shown]  # the fifth and sixth are below the first two
    assert [names(panel.xaxis) for panel in panels] == below


def test_some_heads_can_be_chosen(att):
    panels, _ = drawn(attention_maps(att, LABELS, heads=[4, 1]))
    assert [panel.get_title() for panel in panels] == ["head 4", "head 1"]
    np.testing.assert_array_equal(panels[0].images[0].get_array().data, att[4])


@pytest.mark.parametrize("heads", [[], [6], [-1]])
def test_heads_that_are_not_there_are_refused(heads, att):
    with pytest.raises(ArgumentError, match=r"heads must be some of 0 to 5, not \["):
        attention_maps(att, LABELS, heads)


def test_of_many_tokens_some_are_named():
    T = 200
    panels, _ = drawn(attention_maps(np.tri(T)[None] / T, [str(i) for i in range(T)]))
    shown = [int(name) for name in names(panels[0].yaxis)]
    assert 20 < len(shown) < 60 and shown == list(range(0, T, shown[1]))


def test_the_stream_goes_upwards(rng):
    norms = rng.random((3, 5)) + 1
    (panel,), bar = drawn(residual_norms(norms, ["embedding", "attention 0", "mlp 0"], LABELS))
    np.testing.assert_array_equal(panel.images[0].get_array(), norms[::-1])
    assert names(panel.yaxis) == ["mlp 0", "attention 0", "embedding"]
    assert len(names(panel.xaxis)) == 5
    assert "norm" in bar.get_ylabel()


def test_norms_of_tensors_share_their_colours():
    norms = {name: np.array([1.0, 2.0]) * (i + 1) for i, name in enumerate(NAMES)}
    (left, right), bar = drawn(tensor_norms({"wte": 40.0, **norms, "lnfb": 0.1}))
    assert left.images[0].get_array().tolist() == [[1, 2], [2, 4], [3, 6]]
    assert names(left.yaxis) == NAMES and names(left.xaxis) == ["0", "1"]
    assert right.images[0].get_array().tolist() == [[40], [0.1]]
    assert names(right.yaxis) == ["wte", "lnfb"]
    assert left.images[0].norm is right.images[0].norm
    assert left.images[0].norm([0.1, 40]).tolist() == pytest.approx([0, 1])
    assert [text.get_text() for text in right.texts] == ["40", "0.1"]
    assert bar.get_ylabel() == "norm of the gradient"


def test_the_lens_writes_its_words_and_marks_those_that_are_right(rng):
    words, probs = [["a", "b$"], ["c", "internationally"]], rng.random((2, 2))
    targets = ["c", "internationally" * 3]
    (panel,), bar = drawn(logit_lens(words, probs, ["embedding", "mlp 0"], ["x", "y"], targets))
    np.testing.assert_array_equal(panel.images[0].get_array(), probs[::-1])
    assert names(panel.yaxis) == ["mlp 0", "embedding"] and names(panel.xaxis) == ["x", "y"]
    shown = [text.get_text() for text in panel.texts]
    assert shown == ["c", "internati…", "a", r"b\$"]
    assert [text.get_fontweight() for text in panel.texts] == ["bold"] + 3 * ["normal"]
    (top,) = panel.child_axes
    assert names(top.xaxis) == ["c", ("internationally" * 3)[:31] + "…"]
    assert "probability" in bar.get_ylabel()
    (panel,), _ = drawn(logit_lens(words, probs, ["embedding", "mlp 0"], ["x", "y"]))
    assert not panel.child_axes


def test_times_are_marks_in_milliseconds_with_their_ratio():
    book, kernels = {"gelu": (4e-3, 6e-3), "matmul": (1e-3, 8e-3)}, {
        "gelu": (2e-3, 1e-3), "matmul": (2e-3, 8e-3)
    }  # fmt: skip
    figure = layer_times({"numpy": book, "numba": kernels})
    figure.savefig(io.BytesIO(), format="png")
    (axes,) = figure.axes
    rows = dict(zip(axes.get_yticks(), names(axes.yaxis), strict=True))
    assert list(rows.values()) == [
        "gelu forward", "gelu backward", "matmul forward", "matmul backward"
    ]  # fmt: skip
    _, one, two = axes.collections
    for marks, milliseconds in ((one, [4, 6, 1, 8]), (two, [2, 1, 2, 8])):
        x, y = marks.get_offsets().T
        assert x.tolist() == pytest.approx(milliseconds)
        assert [rows[at] for at in y] == list(rows.values())
    assert [text.get_text() for text in axes.texts] == ["ratio", "2", "6", "0.5", "1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["textbook", "kernels"]
    assert axes.get_xscale() == "log" and "milliseconds" in axes.get_xlabel()


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_names_is_refused(count):
    with pytest.raises(ArgumentError, match=f"there must be 2 names of columns, not {count}"):
        heatmap(np.zeros((2, 2)), "ab", "abc"[:count], "")
    with pytest.raises(ArgumentError, match=f"there must be 2 names of rows, not {count}"):
        heatmap(np.zeros((2, 2)), "abc"[:count], "ab", "")


DRAWINGS = {
    "heatmap": lambda: heatmap(np.ones((1, 1)), "a", "b", ""),
    "attention_maps": lambda: attention_maps(np.ones((1, 1, 1)), "a"),
    "residual_norms": lambda: residual_norms(np.ones((1, 1)), ["embedding"], "a"),
    "tensor_norms": lambda: tensor_norms({"wte": 1.0, "fcw": np.ones(1)}),
    "logit_lens": lambda: logit_lens([["a"]], np.ones((1, 1)), ["embedding"], "a"),
    "layer_times": lambda: layer_times({"numpy": {"gelu": (1, 1)}, "numba": {"gelu": (1, 1)}}),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_missing_matplotlib_is_one_sentence(name, monkeypatch):
    DRAWINGS[name]()
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ArgumentError, match=re.escape(install_extra("plot"))):
        DRAWINGS[name]()


def test_pyplot_is_never_imported():
    code = (
        "import sys, numpy as np; from npgpt.inside import pictures;"
        "print('matplotlib' in sys.modules);"
        "pictures.attention_maps(np.ones((1, 1, 1)), 'a'); print('matplotlib' in sys.modules);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]

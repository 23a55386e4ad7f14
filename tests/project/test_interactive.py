"""The drawings that move: each is one file that loads nothing, and its formulas are npgpt's."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers import ROOT

from npgpt.layers import (
    gelu_backward,
    gelu_forward,
    layernorm_backward,
    layernorm_forward,
)

DRAWINGS = {
    "ThreeWays": ROOT / "doc" / "layernorm" / "three_ways.html",
    "GeluSlope": ROOT / "doc" / "gelu" / "slope.html",
}
LOADS = r"\b(?:src|srcset|href|data|action)\s*=|url\(|\bimport\b|fetch\(|XMLHttpRequest|https?:"

each_drawing = pytest.mark.parametrize("name", DRAWINGS)
with_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="needs node, a JavaScript engine"
)


def blocks(text):
    """The text of the samples' block, of the formulas' and of the page's."""
    found = re.findall(r"<script[^>]*>\n(.*?)</script>", text, re.DOTALL)
    assert len(found) == 3
    return found


def samples_of(text):
    return json.loads(blocks(text)[0])


def layernorm(sample):
    x, g = (np.array([sample[name]]) for name in "xg")
    ones, zeros = np.ones(x.shape[1]), np.zeros(x.shape[1])
    xhat, cache = layernorm_forward(x, ones, zeros)
    dx, _, _ = layernorm_backward(g, cache)
    mean, rstd = (float(value.squeeze()) for value in cache[2:])
    return {"mean": mean, "rstd": rstd, "xhat": xhat[0], "dx": dx[0]}


def gelu(sample):
    out, cache = gelu_forward(np.array([sample["x"]]))
    return {"out": out[0], "slope": gelu_backward(np.ones(1), cache)[0]}


def assert_are_npgpts(name, samples):
    """Each sample has what npgpt.layers makes of its inputs."""
    assert len(samples) >= 8
    for sample in samples:
        for key, value in {"ThreeWays": layernorm, "GeluSlope": gelu}[name](sample).items():
            np.testing.assert_allclose(sample[key], value, rtol=1e-12, atol=1e-13)


def in_node(name, text, expression):
    """An expression's value in JavaScript, with the drawing's formulas and its samples there."""
    data, formulas, _ = blocks(text)
    program = f"{formulas}\nconst samples = {data};\nconsole.log(JSON.stringify({expression}));"
    ran = subprocess.run(["node", "-"], input=program, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def text(name):
    return DRAWINGS[name].read_text(encoding="utf-8")


@each_drawing
def test_it_loads_nothing_from_elsewhere(text):
    assert re.findall(LOADS, text) == []


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="x.js">',
        "<link href='https://a/b.css'>",
        "background: url(a.png)",
        '@import "a.css";',
        'await fetch("a.json")',
        'import "./a.js";',
    ],
)
def test_what_loads_is_found(loads):
    assert re.search(LOADS, loads)


@each_drawing
def test_its_samples_are_npgpts(name, text):
    samples = samples_of(text)
    assert_are_npgpts(name, samples)
    key = {"ThreeWays": "dx", "GeluSlope": "slope"}[name]
    samples[3][key] = (np.array(samples[3][key]) * 1.000001).tolist()
    with pytest.raises(AssertionError):
        assert_are_npgpts(name, samples)


@with_node
@each_drawing
def test_its_formulas_agree_with_the_samples(name, text):
    assert in_node(name, text, f"{name}.check(samples)") < 1e-11


@with_node
@pytest.mark.parametrize(
    ("name", "formula", "wrong"),
    [
        ("ThreeWays", "-rstd * gMean", "rstd * gMean"),
        ("ThreeWays", "+ throughVariance[i]", ""),
        ("ThreeWays", "1e-5) ** -0.5", "1e-3) ** -0.5"),
        ("GeluSlope", "3 * GeluSlope.a", "GeluSlope.a"),
        ("GeluSlope", "0.044715", "0.0447"),
    ],
)
def test_a_wrong_formula_is_caught(name, text, formula, wrong):
    assert text.count(formula) == 1
    assert in_node(name, text.replace(formula, wrong), f"{name}.check(samples)") > 1e-6


@with_node
def test_the_terms_of_layernorm_are_its_three_ways():
    text = DRAWINGS["ThreeWays"].read_text(encoding="utf-8")
    made = in_node("ThreeWays", text, "samples.map(({x, g}) => ThreeWays.backward(x, g))")
    for sample, terms in zip(samples_of(text), made, strict=True):
        g, xhat, rstd = (np.array(sample[key]) for key in ("g", "xhat", "rstd"))
        np.testing.assert_allclose(terms["direct"], rstd * g, atol=1e-11)
        np.testing.assert_allclose(terms["throughMean"], np.full(4, -rstd * g.mean()), atol=1e-11)
        through = -rstd * xhat * (g * xhat).mean()
        np.testing.assert_allclose(terms["throughVariance"], through, atol=1e-11)


@with_node
def test_the_differences_that_are_shown_agree_with_the_gradients():
    text = DRAWINGS["ThreeWays"].read_text(encoding="utf-8")
    made = in_node("ThreeWays", text, "samples.map(({x, g}) => ThreeWays.numeric(x, g))")
    for sample, numeric in zip(samples_of(text), made, strict=True):
        scale = max(1, np.abs(sample["dx"]).max())
        np.testing.assert_allclose(
            np.array(numeric) / scale, np.array(sample["dx"]) / scale, atol=1e-4
        )
    text = DRAWINGS["GeluSlope"].read_text(encoding="utf-8")
    made = in_node("GeluSlope", text, "samples.map(({x}) => GeluSlope.numeric(x))")
    np.testing.assert_allclose(made, [sample["slope"] for sample in samples_of(text)], atol=1e-8)


@each_drawing
def test_it_can_be_moved_by_keys_and_says_what_it_moves(text):
    page = blocks(text)[2]
    markup = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL) + page
    inputs = re.findall(r"<(?:input|select)[^>]*\bid=\"([^\"]+)\"", markup)
    labels = re.findall(r"<label for=\"([^\"]+)\"", markup)
    assert inputs and sorted(inputs) == sorted(labels)
    assert "onmouse" not in text and "pointer" not in page
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"animation|transition|setInterval|requestAnimationFrame", text)

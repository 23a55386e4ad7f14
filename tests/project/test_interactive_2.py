"""The pictures to try of softmax and of Adam's valley: alone on their page, and right.

Each has a block of results of npgpt, with which the page compares its own formulas. Here the block
is compared with npgpt.layers, and where Node.js is installed the formulas are run.

`PYTHONPATH=.:tests python tests/project/test_interactive_2.py` writes both blocks anew.
"""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import ROOT

from npgpt import layers
from npgpt.layers.attention import attend

SOFTMAX = ROOT / "doc" / "attention" / "softmax.html"
VALLEY = ROOT / "doc" / "adamw" / "valley.html"
T = 5

each_file = pytest.mark.parametrize("path", [SOFTMAX, VALLEY], ids=lambda path: path.stem)
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


def script(text, name):
    """What stands in the script element whose id ends with this name."""
    (found,) = re.findall(rf'<script[^>]* id="npgpt-\w+-{name}">\n(.*?)</script>', text, re.S)
    return found


def cases(path):
    return json.loads(script(path.read_text("utf-8"), "cases"))


def from_elsewhere(text):
    """What a file would load, or could load by its script, from another place."""
    without_names = text.replace("http://www.w3.org/2000/svg", "")
    by_page, by_script = r"\bsrc=|\bhref=|url\(|@import", r"\bfetch\(|XMLHttpRequest|\bimport\b"
    return re.findall(rf"https?:|//\w+\.|{by_page}|{by_script}", without_names)


class Controls(HTMLParser):
    """The controls of a page that a screen reader has no name for."""

    def __init__(self, text):
        super().__init__()
        self.inside, self.nameless = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("label", "button"):
            self.inside.append(tag)
        if tag in ("input", "select") and "label" not in self.inside:
            self.nameless.append(dict(attributes).get("name"))

    def handle_endtag(self, tag):
        if tag in ("label", "button"):
            self.inside.remove(tag)


def softmax_case(products, hs, masked, datt):
    """By npgpt: keys of unit vectors make q of the products, and values of them dy of datt."""
    products, datt = np.array(products, float), np.array(datt, float)  # each (T, T)
    unit = np.eye(T, hs)  # (T, hs)
    q, dy = products @ unit, datt @ unit  # each (T, hs)
    if masked:
        qkv = np.concatenate([q, unit, unit], axis=-1)[None]  # (1, T, 3C), NH = 1
        _, cache = layers.attention_forward(qkv, 1)
        dq = layers.attention_backward(dy[None], cache)[0, :, :hs]  # (T, hs)
        return cache[1][0, 0], dq[:, :T] * hs**0.5
    rows = [attend(row[None], unit, unit)[1][0] for row in q]  # the last position sees all
    dpreatt = []
    for t in range(T):
        qkv = np.concatenate([np.tile(q[t], (T, 1)), unit, unit], axis=-1)[None]
        last = np.where(np.arange(T)[:, None] == T - 1, dy[t], 0)[None]  # (1, T, C)
        _, cache = layers.attention_forward(qkv, 1)
        dpreatt.append(layers.attention_backward(last, cache)[0, -1, :T] * hs**0.5)
    return np.array(rows), np.array(dpreatt)


def valley_points(way, start, settings, steps):
    """By npgpt: the update, or the first of its two means, or the gradient that it is given."""
    turn = np.radians(settings["turn"])
    along = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # (2, 2)
    H = along.T @ np.diag([1.0, settings["steep"]]) @ along  # (2, 2)
    p, m, v = np.array(start, float), np.zeros(2), np.zeros(2)  # each (N,)
    points = [p.copy()]
    for t in range(1, steps + 1):
        g, adam = H @ p, p.copy()  # each (N,)
        betas = settings["beta1"], settings["beta2"]
        layers.adamw_update(adam, g, m, v, t, settings["lr"], *betas, 1e-8, 0.0)
        descended = {"descent": p - settings["lr"] * g, "momentum": p - settings["lr"] * m}
        p = descended.get(way, adam)
        points.append(p.copy())
    return points


def off(path, found):
    """The largest difference between the results in the cases and those of npgpt.layers."""
    if path == SOFTMAX:
        pairs = [
            (np.stack([case["att"], case["dpreatt"]]),
             softmax_case(*(case[name] for name in ("products", "hs", "masked", "datt"))))
            for case in found
        ]  # fmt: skip
    else:
        pairs = [
            (case["points"],
             valley_points(case["way"], case["start"], case["settings"], len(case["points"]) - 1))
            for case in found
        ]  # fmt: skip
    return max(np.abs(np.array(a) - np.array(b)).max() for a, b in pairs)


def error_in_node(text):
    """The page's own comparison of its formulas with its cases, run by Node.js."""
    name = re.search(r"const (npgpt\w+) =", script(text, "formulas")).group(1)
    code = f"{script(text, 'formulas')}\nconsole.log({name}.error({script(text, 'cases')}));"
    ran = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return float(ran.stdout)


@each_file
def test_it_loads_nothing_from_elsewhere(path):
    assert from_elsewhere(path.read_text("utf-8")) == []


def test_what_is_loaded_from_elsewhere_is_found():
    for text in ('<script src="x.js">', '<a href="x">', "url(x.png)", "fetch('x')", "//cdn.org/x"):
        assert from_elsewhere(text), text
    assert from_elsewhere('"http://www.w3.org/2000/svg"') == []


@each_file
def test_every_control_has_a_name(path):
    text = path.read_text("utf-8")
    assert Controls(text).nameless == []
    unnamed = text.replace("<label>", "<p>").replace("</label>", "</p>")
    assert len(Controls(unnamed).nameless) >= 4


@each_file
def test_it_minds_dark_mode_and_print(path):
    text = path.read_text("utf-8")
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert text.isascii()  # so that it is read alike with and without a declared encoding
    rules = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    selectors = re.findall(r"^ *([.\w][^{@]*)\{", rules, re.M)
    scoped = [s for s in selectors if ".npgpt-" in s or s.strip() == "body:not([data-theme])"]
    assert selectors and scoped == selectors  # the rest of the page stays as it is


@each_file
def test_its_page_shows_it(path):
    page = (path.parent / f"{path.parent.name}.md").read_text("utf-8")
    assert f"```{{raw}} html\n:file: {path.name}\n```" in page


@each_file
def test_its_cases_are_results_of_npgpt(path):
    found = cases(path)
    assert len(found) >= 4
    assert off(path, found) < 1e-12
    found[0]["att" if path == SOFTMAX else "points"][1][0] += 1e-6
    assert off(path, found) > 1e-7


@needs_node
@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        (SOFTMAX, "a * (datt[u] - mean)", "a * datt[u]"),
        (SOFTMAX, "masked && u > t", "masked && u >= t + 2"),
        (VALLEY, "vhat = v[i] / (1 - beta2 ** t)", "vhat = v[i]"),
        (VALLEY, "lr * m[i]", "lr * g[i]"),
    ],
)
def test_its_formulas_give_the_cases_and_wrong_ones_do_not(path, right, wrong):
    text = path.read_text("utf-8")
    assert error_in_node(text) < 1e-12
    assert text.count(right) == 1
    assert error_in_node(text.replace(right, wrong)) > 1e-3


def main():
    """Write the cases of both pages."""
    sys.path.insert(0, str(ROOT / "doc"))
    from drawing import write_samples

    rng = np.random.default_rng(0)
    softmax = []
    for hs, masked in ((16, True), (16, False), (64, True), (64, False)):
        products, datt = rng.integers(-30, 60, (T, T)), rng.integers(-3, 4, (T, T))
        att, dpreatt = softmax_case(products, hs, masked, datt)
        softmax.append(
            {"products": products, "hs": hs, "masked": masked, "datt": datt, "att": att,
             "dpreatt": dpreatt}
        )  # fmt: skip
    write_samples(SOFTMAX, softmax)
    start, usual = (-1.9, 1.1), {"lr": 0.08, "beta1": 0.9, "beta2": 0.999, "steep": 20, "turn": 0}
    turned = {"lr": 0.03, "beta1": 0.5, "beta2": 0.9, "steep": 50, "turn": 30}
    valley = [
        {"way": way, "start": start, "settings": settings,
         "points": valley_points(way, start, settings, 12)}
        for settings in (usual, turned)
        for way in ("descent", "momentum", "adamw")
    ]  # fmt: skip
    write_samples(VALLEY, valley)


if __name__ == "__main__":
    main()

"""The notebooks' exercises: what is right is used and kept, what is wrong is named and replaced."""

import numpy as np
import pytest

from npgpt import layers
from npgpt.checks.exercises import (
    check_backward,
    check_forward,
    check_update,
    keep_exercises,
)

INSTEAD = "What follows uses npgpt's own function.\n"
rng = np.random.default_rng(0)
X, W, B = rng.standard_normal((2, 3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)


def my_matmul_forward(x, w, b=None):
    return x @ w.T + b, (x, w, b)


def my_matmul_backward(dout, cache):
    return layers.matmul_backward(dout, cache)


def my_adamw_update(*arguments):
    layers.adamw_update(*arguments)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def check(backward):
    return check_backward(backward, layers.matmul_backward, layers.matmul_forward, X, W, B)


def test_right_functions_are_used_and_leave_no_file(capsys, tmp_path):
    assert check(my_matmul_backward) is my_matmul_backward
    assert check_forward(my_matmul_forward, layers.matmul_forward, X, W, B) is my_matmul_forward
    assert check_update(my_adamw_update, layers.adamw_update) is my_adamw_update
    out = capsys.readouterr().out
    for name in ("matmul_backward", "matmul_forward", "adamw_update"):
        assert f"my_{name} is right. What follows uses it.\n" in out
    assert list(tmp_path.iterdir()) == []


def not_written(dout, cache):
    raise NotImplementedError


def wrong_shapes(dout, cache):
    x, w, b = cache
    return dout @ w.T, None, None


def too_few(dout, cache):
    return layers.matmul_backward(dout, cache)[0]


def nothing(dout, cache):
    layers.matmul_backward(dout, cache)


def wrong_dw(dout, cache):
    dx, dw, db = layers.matmul_backward(dout, cache)
    dw[1, 2] += 1
    return dx, dw, db


def transposed(dout, cache):
    dx, dw, db = layers.matmul_backward(dout, cache)
    return dx, dw.T, db


@pytest.mark.parametrize(
    "backward, said",
    [
        (not_written, "not_written is not written yet."),
        (wrong_shapes, "wrong_shapes stops at `return dout @ w.T, None, None`: ValueError: "),
        (too_few, "too_few: backward returned 1 gradients for 3 arrays of floats: x, w, b."),
        (nothing, "nothing: backward returned 0 gradients for 3 arrays of floats: x, w, b."),
        (wrong_dw, "dw is wrong at [1, 2]: yours is "),
        (transposed, "dw is wrong: backward returned shape (4, 5), and it must be (5, 4)."),
    ],
)
def test_a_wrong_backward_pass_is_named_and_the_textbooks_is_used(backward, said, capsys):
    assert check(backward) is layers.matmul_backward
    out = capsys.readouterr().out
    assert said in out and out.endswith(INSTEAD)


def test_the_element_found_and_the_one_expected_are_said(capsys):
    check(wrong_dw)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "dw is wrong" in line]
    yours, expected = (
        float(part.rstrip(".").split()[-1]) for part in line.split("yours is ")[1].split(",")
    )
    assert yours - expected == pytest.approx(1, abs=1e-4)
    assert "and by differences of the forward pass" in line


@pytest.mark.parametrize(
    "forward, said",
    [
        (lambda x, w, b: (x @ w.T, (x, w, b)), "out is wrong at ["),
        (lambda x, w, b: ((x @ w.T + b)[0], (x, w, b)), "out has the shape (3, 5), and must"),
        (lambda x, w, b: (x @ w.T + b, (x, w)), "the cache has 2 entries, and must have 3."),
        (lambda x, w, b: (x @ w.T + b, (x, w, w)), "entry 2 of the cache has the shape (5, 4)"),
        (
            lambda x, w, b: (x @ w.T + b * np.nan, (x, w, b)),
            "out is wrong at [0, 0, 0]: yours is nan",
        ),
    ],
)
def test_a_wrong_forward_pass_is_named(forward, said, capsys):
    assert check_forward(forward, layers.matmul_forward, X, W, B) is layers.matmul_forward
    out = capsys.readouterr().out
    assert said in out and out.endswith(INSTEAD)


def test_a_wrong_update_is_named_by_step_and_array(capsys):
    def no_scale(p, g, m, v, *arguments):
        layers.adamw_update(p, g, m, v, *arguments[:-1])

    def not_in_place(p, g, m, v, *arguments):
        layers.adamw_update(p.copy(), g, m, v, *arguments)

    def always_the_first(p, g, m, v, t, *arguments):
        layers.adamw_update(p, g, m, v, 1, *arguments)

    for update, said in (
        (no_scale, "after step 1, m is wrong"),
        (not_in_place, "after step 1, p is wrong"),
        (always_the_first, "after step 2, p is wrong"),
    ):
        assert check_update(update, layers.adamw_update) is layers.adamw_update
        assert said in capsys.readouterr().out


def test_an_interruption_is_no_fault_of_the_function():
    def interrupted(dout, cache):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(interrupted)


def test_what_is_right_is_kept_once_and_its_last_version(tmp_path, capsys):
    keep_exercises()
    file = tmp_path / "my_layers.py"
    assert str(file.resolve()) in capsys.readouterr().out
    check(my_matmul_backward)
    check(wrong_dw)
    check_update(my_adamw_update, layers.adamw_update)
    assert "my_matmul_backward is right. What follows uses it, and my_layers.py keeps it." in (
        capsys.readouterr().out
    )
    earlier = file.read_text(encoding="utf-8").replace("(dout, cache)\n", "(dout, 2)\n")
    file.write_text(earlier, encoding="utf-8")
    check(my_matmul_backward)
    keep_exercises()  # does not begin anew
    text = file.read_text(encoding="utf-8")
    assert text.count("def my_matmul_backward") == text.count("def my_adamw_update") == 1
    assert "(dout, 2)" not in text and "wrong_dw" not in text
    made = {}
    exec(text.replace("    return layers", "    from npgpt import layers\n    return layers"), made)
    np.testing.assert_array_equal(
        made["my_matmul_backward"](np.ones((2, 3, 5)), (X, W, B))[1],
        layers.matmul_backward(np.ones((2, 3, 5)), (X, W, B))[1],
    )
    assert made["EPS"] == layers.layernorm.EPS and made["CUBIC"] == layers.gelu.CUBIC
    assert made["SCALE"] == layers.gelu.SCALE

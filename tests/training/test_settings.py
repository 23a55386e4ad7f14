"""Settings: kinds, limits, unknown keys, and TOML there and back."""

import dataclasses
import time
import tomllib

import pytest

from npgpt.errors import ArgumentError, FileError, NpgptError
from npgpt.training.settings import FIELDS, Settings, as_toml, make_settings, read_toml


def test_the_defaults_are_within_their_own_limits():
    assert make_settings({}) == Settings()


@pytest.mark.parametrize(
    "values, words",
    [
        ({"lr": "fast"}, "lr must be of type float, not 'fast'"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"lr": float("nan")}, "lr must be a finite number, not nan"),
        ({"steps": 1.5}, "steps must be of type int, not 1.5"),
        ({"steps": True}, "steps must be of type int, not True"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"beta1": 1.0}, "beta1 must be below 1, not 1.0"),
        ({"final_lr_fraction": 1.5}, "final_lr_fraction must be at most 1, not 1.5"),
        ({"min_lr": -1e-5}, "min_lr must be at least 0, not -1e-05"),
        ({"min_lr": 1e-3}, "min_lr must be at most lr = 0.0003, not 0.001"),
        (
            {"min_lr": 1e-5, "final_lr_fraction": 0.1},
            "min_lr and final_lr_fraction do not go together: give one",
        ),
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, muon, not 'sgd'"),
        ({"decayed_params": "biases"}, "decayed_params must be one of matrices, all, not 'biases'"),
        ({"schedule": "cos"}, "schedule must be one of cosine, linear, constant, wsd, not 'cos'"),
        ({"recompute": 1}, "recompute must be of type bool, not 1"),
        ({"B": 3, "T": 5, "total_batch": 40}, "total_batch must be a multiple of B * T = 15"),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(values, words):
    with pytest.raises(ArgumentError) as caught:
        make_settings(values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "key, near",
    [("learning_rate", None), ("step", "steps"), ("chekpoint_every", "checkpoint_every")],
)
def test_an_unknown_key_is_refused_with_the_nearest_known(key, near):
    with pytest.raises(ArgumentError) as caught:
        make_settings({key: 1}, "some.toml: ")
    assert f"some.toml: there is no setting {key}; " in str(caught.value)
    if near:
        assert f"did you mean {near}?" in str(caught.value)


def test_a_whole_number_will_do_for_a_float():
    assert make_settings({"lr": 1, "clip": 2}).lr == 1


def test_toml_there_and_back(tmp_path):
    odd = 'a "quoted" \\ path\nwith ünïcode 😀 and \x7f\x01'
    settings = make_settings({"run": odd, "lr": 1e-5, "recompute": True, "steps": 7})
    path = tmp_path / "settings.toml"
    path.write_text(as_toml(settings), encoding="utf-8")
    assert read_toml(path) == dataclasses.asdict(settings)
    assert make_settings(read_toml(path)) == settings
    assert list(tomllib.loads(as_toml(settings))) == list(FIELDS)


@pytest.mark.parametrize("content", [b"lr = ", b"\xff", b"lr = 1\nlr = 2"])
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"bad\.toml: not TOML: "):
        read_toml(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr = " + "[" * 100_000, "not TOML"),
        ("steps = 1" + 5000 * "0", "not TOML"),
        ("steps = 1" + 400 * "0", r"steps must be from -2\^53 to 2\^53"),
        ("lr = 1" + 400 * "0", r"lr must be from -2\^53 to 2\^53"),
        ("a." * 20_000 + "b = 1", "a key of more than 50 parts"),
        ("[" + '"a" . ' * 20_000 + "b]", "a key of more than 50 parts"),
        ('"a b".' * 20_000 + "c = 1", "a key of more than 50 parts"),
        ("x = {y = 1, " + "a." * 20_000 + "b = 1}", "a key of more than 50 parts"),
        ("# " + "x" * 2_000_000, "2,000,002 bytes, but 1,000,000 are the most"),
    ],
)
def test_a_file_that_would_take_long_or_overflow_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    start = time.perf_counter()
    with pytest.raises(NpgptError, match=f"some.toml: {words}"):
        make_settings(read_toml(path), f"{path}: ")
    assert time.perf_counter() - start < 2


def test_a_prompt_of_many_dots_is_no_key(tmp_path):
    (tmp_path / "some.toml").write_text("sample_prompt = '" + "wait ... " * 60 + "'\n")
    assert "wait ..." in read_toml(tmp_path / "some.toml")["sample_prompt"]


def test_a_long_word_takes_no_longer_than_its_length(tmp_path):
    """Searching for a key of many parts once took time that grew with the square of it."""
    (tmp_path / "a.toml").write_text("x" * 900_000)
    start = time.process_time()
    with pytest.raises(FileError, match="not TOML"):
        read_toml(tmp_path / "a.toml")
    assert time.process_time() - start < 1


def test_dots_in_a_text_or_a_comment_are_no_key(tmp_path):
    text = "x." * 60
    (tmp_path / "a.toml").write_text(f'sample_prompt = "{text}"  # v1. v2. {text}\n')
    assert read_toml(tmp_path / "a.toml") == {"sample_prompt": text}

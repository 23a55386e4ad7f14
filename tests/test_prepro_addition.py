"""Sums as token files: right, all there, and none of validation's in training."""

import numpy as np
import pytest

from npgpt.data.addition import sum_text
from npgpt.data.batches import make_batches
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.token_files import open_tokens
from npgpt.prepro_addition import main, make_sums, split


def sums(path):
    """The sums of a token file, as they are written."""
    tokens = open_tokens(path)
    tokenizer = tokenizer_from_description(tokens.tokenizer_description)
    text = tokenizer.decode(tokens.read(0, len(tokens)))
    first, *rest = text.split("<|endoftext|>")
    assert first == ""
    return rest


def terms(text):
    a, b = text.split("=")[0].split("+")
    return int(a), int(b)


def run(tmp_path, *args):
    assert main([*args, "--out", str(tmp_path)]) == 0
    return [sums(tmp_path / f"addition_{part}.bin") for part in ("val", "train")]


def test_all_sums_of_two_digits_are_there_once_and_right(tmp_path, capsys):
    val, train = run(tmp_path)
    assert sorted(map(terms, val + train)) == [(a, b) for a in range(100) for b in range(100)]
    for text in val + train:
        a, b = terms(text)
        assert text == f"{a:02}+{b:02}={a + b:03}\n"
    assert 900 < len(val) < 1100
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{tmp_path}/addition_val.bin: {11 * len(val):,} tokens"
    assert out[1] == f"{tmp_path}/addition_train.bin: {11 * len(train):,} tokens"


@pytest.mark.parametrize("args", [[], ["--digits", "1", "--val-fraction", "0.5", "--seed", "3"]])
def test_no_sum_of_validation_is_in_training_not_even_turned_round(args, tmp_path):
    val, train = (set(map(terms, part)) for part in run(tmp_path, *args))
    assert val and train
    assert not val & train
    assert not {(b, a) for a, b in val} & train
    assert {(b, a) for a, b in val} == val  # of all sums, those turned round are there as well


def test_the_seed_decides_and_the_order_is_random(tmp_path):
    args = ["--digits", "1"]
    one, same, other = (run(tmp_path, *args, "--seed", seed) for seed in ("1", "1", "2"))
    assert one == same and one != other
    assert one[1] != sorted(one[1])


def test_the_fraction_is_that_of_validation(tmp_path):
    for fraction in (0.02, 0.3, 0.9):
        val, train = run(tmp_path, "--val-fraction", str(fraction))
        assert abs(len(val) / 10_000 - fraction) < 0.02


def test_of_many_digits_as_many_as_count_are_drawn(tmp_path):
    val, train = run(tmp_path, "--digits", "9", "--count", "500")
    assert len(set(map(terms, val + train))) == 500
    assert all(len(text) == 9 + 1 + 9 + 1 + 10 + 1 for text in val + train)
    assert max(map(max, map(terms, train))) > 10**8
    assert len(make_sums(3, 50_000, 0)) == len(set(make_sums(3, 50_000, 0))) == 50_000


def test_three_digits_are_bounded_without_count(tmp_path):
    val, train = run(tmp_path, "--digits", "3")
    assert len(val) + len(train) == 50_000


def test_the_smallest_count_has_both_parts(tmp_path):
    for seed in range(20):
        val, train = split(make_sums(1, 3, seed), 0.1).values()
        assert val and train


def test_a_sum_is_a_document_of_known_length(tmp_path):
    run(tmp_path)
    tokens = open_tokens(tmp_path / "addition_train.bin")
    tokenizer = tokenizer_from_description(tokens.tokenizer_description)
    assert tokenizer.vocab_size == 14
    x, y = make_batches(tokens, 4, 11, "documents").next()
    assert (x[:, 0] == tokenizer.eot).all() and (y[:, -1] == tokenizer.eot).all()
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert tokenizer.decode(x[0, 1:]) == sum_text(*terms(tokenizer.decode(x[0, 1:])), 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--digits", "0"], "--digits must be from 1 to 9, not 0"),
        (["--digits", "10"], "--digits must be from 1 to 9, not 10"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--count", "2"], "--count must be from 3 to 10000, not 2"),
        (["--digits", "1", "--count", "101"], "--count must be from 3 to 100, not 101"),
        (["--digits", "5", "--count", "10000001"], "--count must be from 3 to 10000000, not"),
        (["--val-fraction", "0"], "--val-fraction must be between 0 and 1, not 0.0"),
        (["--val-fraction", "nan"], "--val-fraction must be between 0 and 1, not nan"),
    ],
)
def test_bad_options_are_one_sentence(args, message, tmp_path, capsys):
    assert main([*args, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()

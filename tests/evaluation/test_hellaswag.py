"""HellaSwag's files and scoring: what was written, what the logits say, and damaged files."""

import numpy as np
import pytest
from helpers import token_losses, write_hellaswag

from npgpt import GPT2, ArgumentError, FileError
from npgpt.evaluation.hellaswag import Example, choose, completion_loss, is_cut, read_hellaswag

V = 251  # of the tiny model


@pytest.fixture
def model(params):
    return GPT2(params.config, params=params, backend="numpy")


@pytest.fixture
def examples(rng):
    """Three examples of different lengths: 38, 44 and 88 bytes."""

    def tokens(n):
        return rng.integers(100, V, n)

    return [
        Example(tokens(5), [tokens(1) for _ in range(4)], 2),
        Example(tokens(1), [tokens(2), tokens(5), tokens(1), tokens(3)], 0),
        Example(tokens(12), [tokens(6), tokens(6), tokens(2), tokens(8)], 3),
    ]


def test_what_was_written_is_read(examples, tmp_path):
    read = read_hellaswag(write_hellaswag(tmp_path / "h.bin", examples), V)
    assert len(read) == 3
    for got, expected in zip(read, examples, strict=True):
        assert got.label == expected.label
        np.testing.assert_array_equal(got.context, expected.context)
        assert len(got.completions) == 4
        for a, b in zip(got.completions, expected.completions, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_file_that_ends_early_or_late_is_refused(examples, tmp_path):
    path = write_hellaswag(tmp_path / "h.bin", examples)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(FileError, match=r"h.bin: (not a|damaged|example . of 3: truncated)"):
            read_hellaswag(path, V)
    path.write_bytes(content + b"\0\0")
    with pytest.raises(FileError, match=r"damaged|too long"):
        read_hellaswag(path, V)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"magic": 20240520}, "not a HellaSwag file (magic 20240520, expected 20240522)"),
        ({"version": 2}, "a HellaSwag file of version 2, but 1 is known"),
        ({"count": 0}, "the header is damaged: 0 examples"),
        ({"count": -1}, "the header is damaged: -1 examples"),
        ({"count": 2**31 - 1}, "damaged ("),
        ({"count": 4}, "example 3 of 4: truncated (the file ends before it)"),
        ({"longest": 28}, "the header is damaged: 3 examples, the longest of 28 bytes"),
        ({"longest": 65536}, "the header is damaged"),
        ({"longest": 400}, "the longest example has 88 bytes, not the header's 400"),
        ({"unused": 1}, "word 4 must be 0, not 1"),
    ],
)
def test_a_header_that_lies_is_one_sentence(changed, message, examples, tmp_path):
    with pytest.raises(FileError) as caught:
        read_hellaswag(write_hellaswag(tmp_path / "h.bin", examples, **changed), V)
    assert str(caught.value).startswith(f"{tmp_path / 'h.bin'}: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_after_the_last_example_are_one_sentence(examples, tmp_path):
    path = write_hellaswag(tmp_path / "h.bin", examples, count=2)
    with pytest.raises(FileError, match="too long|damaged") as caught:
        read_hellaswag(path, V)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 65534, "must begin with 65535, not 65534"),
        (1, 0, "its bytes must be an even number of at least 30, not 0"),
        (1, 33, "its bytes must be an even number of at least 30, not 33"),
        (1, 65534, "truncated (by 65,402 bytes)"),
        (1, 42, "completion 3 must have at least one token and has 3, with 2 left"),
        (1, 32, "completion 2 must have at least one token and has 0, with 0 left"),
        (1, 46, "its bytes must be 44, not 46"),
        (2, 0, "its index must be 1, not 0"),
        (3, 4, "its label must be from 0 to 3, not 4"),
        (4, 3, "must have 4 completions, not 3"),
        (5, 0, "the context must have at least one token and has 0"),
        (5, 60000, "the context must have at least one token and has 60000, with"),
        (6, V, "token 251 is outside the model's vocabulary of 251"),
        (7, 0, "completion 0 must have at least one token and has 0"),
        (7, 9999, "completion 0 must have at least one token and has 9999, with"),
        (7, 1, "completion 1 must have at least one token and has "),
        (-1, 65535, "token 65535 is outside"),
    ],
)
def test_a_damaged_example_is_one_sentence_with_its_index(at, value, message, examples, tmp_path):
    path = write_hellaswag(tmp_path / "h.bin", examples)
    content = bytearray(path.read_bytes())
    words = np.frombuffer(content, "<u2", offset=1024)  # a view
    words[19:41][at] = value  # of the one in the middle
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_hellaswag(path, V)
    assert f"h.bin: example 1 of 3: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("n", "m"), [(1, 1), (5, 7), (39, 1), (1, 40), (40, 1), (41, 1), (60, 9), (9, 60)]
)
def test_the_loss_is_that_of_the_completion_alone(n, m, model, rng):
    context, completion = rng.integers(0, V, n), rng.integers(0, V, m)
    loss = completion_loss(model, context, completion)
    expected = token_losses(model, context, completion)
    assert len(expected) == min(m, 40)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    # and it is told from the loss of the tokens one place on, where there are such
    if n + m < 40:
        other = token_losses(model, context, np.append(completion, 0))[1:].mean()
        assert abs(loss - other) > 1e-3
    assert is_cut(Example(context, [completion], 0), 40) == (n + m > 41)


def test_the_choice_is_the_lowest_mean_and_not_the_lowest_sum(model, rng):
    chosen, by_mean, by_sum = [], [], []
    for _ in range(20):
        context = rng.integers(0, V, 4)
        completions = [rng.integers(0, V, length) for length in (1, 3, 6, 12)]
        chosen.append(choose(model, Example(context, completions, 0)))
        losses = [token_losses(model, context, completion) for completion in completions]
        by_mean.append(int(np.argmin([each.mean() for each in losses])))
        by_sum.append(int(np.argmin([each.sum() for each in losses])))
    assert chosen == by_mean
    assert chosen != by_sum


def test_a_model_that_has_diverged_has_no_choice(model, examples):
    model.params.lnfw[:] = np.inf
    with np.errstate(all="ignore"), pytest.raises(ArgumentError, match="it has diverged"):
        choose(model, examples[0])

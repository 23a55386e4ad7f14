"""Training on the page: the steps are the model's own, and undone bit for bit."""

import math

import numpy as np
import pytest
from helpers import TINY_MODEL

import npgpt
from npgpt.errors import ArgumentError
from npgpt.explore import learning as learning_module
from npgpt.explore.session import Session
from npgpt.explore.tasks import Characters, Sums
from npgpt.explore.wire import to_json

TEXT = "she sells sea shells"


def take(course):
    return sum(1 for _ in course)


@pytest.fixture
def session():
    return Session.named("tiny")


def weights(session):
    return session.model.params.flat.copy()


def test_steps_are_those_of_the_model(session, params):
    assert take(session.learning.steps(5, 1e-3, TEXT)) == 5
    model = npgpt.GPT2(params.config, params=params)
    tokens = session.encode(TEXT)
    losses = []
    for _ in range(5):
        losses.append(model.forward_backward(tokens[None], np.append(tokens[1:], -1)[None]))
        model.update(1e-3)
    assert session.learning.losses == losses
    np.testing.assert_array_equal(session.model.params.flat, params.flat)
    shown = session.progress(3)
    assert (shown["updates"], shown["losses"]) == (5, losses[3:])
    assert shown["actions"] == [{"steps": 5, "lr": 1e-3, "task": False}]
    assert session.picture(TEXT)["loss"] == pytest.approx(
        model.loss(tokens[None, :-1], tokens[None, 1:]), rel=1e-5
    )


@pytest.mark.parametrize("most", [learning_module.SNAPSHOT_BYTES, 0, 1_500_000])
def test_undo_gives_the_same_bits_and_the_same_way_on(session, monkeypatch, most):
    """With kept weights, with none, and where the earliest were given up: steps are repeated."""
    monkeypatch.setattr(learning_module, "SNAPSHOT_BYTES", most)
    learning = session.learning
    states = [weights(session)]
    for steps in (2, 1, 3):
        take(learning.steps(steps, 1e-3, TEXT))
        states.append(weights(session))
    losses = list(learning.losses)
    repeated = take(learning.undo())
    assert (repeated == 3) == (most == 0)
    np.testing.assert_array_equal(weights(session), states[2])
    assert learning.losses == losses[:3]
    take(learning.steps(3, 1e-3, TEXT))
    np.testing.assert_array_equal(weights(session), states[3])
    assert learning.losses == losses
    for state in (states[2], states[1], states[0]):
        take(learning.undo())
        np.testing.assert_array_equal(weights(session), state)
    assert learning.updates == 0 and learning.losses == []
    with pytest.raises(ArgumentError, match="nothing to undo"):
        learning.undo()


def test_a_course_that_is_closed_leaves_what_was_done(session):
    course = session.learning.steps(None, 1e-3, TEXT)
    for _ in range(3):
        next(course)
    course.close()
    assert session.progress()["actions"] == [{"steps": 3, "lr": 1e-3, "task": False}]
    start = npgpt.read_checkpoint(TINY_MODEL)
    take(session.learning.undo())
    np.testing.assert_array_equal(weights(session), start.flat)


def test_a_rate_that_is_too_high_ends_in_words_and_not_in_nan_for_ever(session):
    before = weights(session)
    with np.errstate(all="ignore"):
        session.model.params.wte[:] = np.inf
        assert take(session.learning.steps(10, 1e-3, TEXT)) == 0
    assert session.learning.diverged()
    shown = session.progress()
    assert shown["diverged"] and shown["losses"] == [None]
    session.learning.actions[-1].before = (0, [before])
    take(session.learning.undo())
    assert not session.learning.diverged()
    assert math.isfinite(session.picture(TEXT)["loss"])


def test_divergence_shows_as_a_rising_loss(session):
    take(session.learning.steps(20, 3.0, TEXT))
    losses = session.learning.losses
    assert session.learning.diverged() or losses[-1] > 2 * losses[0]


def test_a_picture_of_weights_that_are_nan_is_json(session):
    session.model.params.wte[:] = np.nan
    with np.errstate(all="ignore"):
        assert session.picture(TEXT)["loss"] is None
        to_json(session.position(TEXT, 3))
        to_json(session.block(TEXT, 1, 3))
        to_json(session.backward(TEXT))
        to_json(session.explain(TEXT, "qkv.0", [0, 0]))


def test_what_is_computed_again_after_a_step(session):
    first = session.picture(TEXT)["loss"]
    assert session.picture(TEXT)["loss"] == first
    take(session.learning.steps(1, 1e-2, TEXT))
    assert session.picture(TEXT)["loss"] < first
    take(session.learning.undo())
    assert session.picture(TEXT)["loss"] == first


@pytest.mark.parametrize(
    ("steps", "lr", "text", "words"),
    [
        (0, 1e-3, TEXT, "steps must be from 1 to 100,000, not 0"),
        (1.5, 1e-3, TEXT, "steps must be"),
        (1, 0, TEXT, "learning rate must be above 0 and at most 10, not 0"),
        (1, float("nan"), TEXT, "learning rate must be"),
        (1, "high", TEXT, "learning rate must be"),
        (1, 1e-3, None, "no batches of its own"),
        (1, 1e-3, "", "no next token to learn from"),
        (1, 1e-3, "🙂", "which is not among"),
    ],
)
def test_what_cannot_be_learnt_is_told_and_changes_nothing(session, steps, lr, text, words):
    before = weights(session)
    with pytest.raises(ArgumentError, match=words):
        session.learning.steps(steps, lr, text)
    np.testing.assert_array_equal(weights(session), before)
    assert session.progress()["actions"] == []


def test_sums_are_right_and_only_what_follows_the_equals_sign_counts():
    task = Sums()
    tokens, targets = task.batch(3)
    assert tokens.shape == targets.shape == (task.B, 10)
    for row, target in zip(tokens, targets, strict=True):
        text = task.tokenizer.decode(row[1:])
        left, right = text.split("=")
        assert sum(map(int, left.split("+"))) == int(right)
        assert [*target[:6]] == [-1] * 6
        assert task.tokenizer.decode(target[6:]) == f"{right}\n"
    np.testing.assert_array_equal(task.batch(3)[0], tokens)
    assert (task.batch(4)[0] != tokens).any()


def test_the_text_of_sums_counts_the_same_targets():
    session = Session.named("addition")
    losses = session.picture("12+34=046")["losses"]
    assert (losses[:6] == 0).all() and (losses[6:9] > 0).all() and losses[9] == 0
    with pytest.raises(ArgumentError, match="no next token to learn from"):
        session.learning.steps(1, 1e-3, "12+34")


def test_characters_are_those_of_the_text():
    text = "the cat sat on the mat. " * 20
    task = Characters(text)
    tokens, targets = task.batch(0)
    for row, target in zip(tokens, targets, strict=True):
        np.testing.assert_array_equal(row[1:], target[:-1])
        assert task.tokenizer.decode(target) in text
    session = Session.named("characters", text)
    before = session.model.loss(tokens, targets)
    take(session.learning.steps(10, 3e-3))
    assert session.model.loss(tokens, targets) < before - 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("short", "must have more than 48 characters, not 5"),
        ("x" * 2_000_001, "can have 2,000,000 characters, not 2,000,001"),
        ("".join(map(chr, range(0x4E00, 0x4E00 + 1001))), "1000 different characters"),
        (None, "must be a string"),
    ],
)
def test_texts_that_cannot_be_learnt_from_are_told(text, words):
    with pytest.raises(ArgumentError, match=words):
        Session.named("characters", text)


def test_there_are_three_models_without_a_file():
    assert Session.named("addition").describe()["task"] == "addition"
    assert Session.named("tiny").describe()["task"] is None
    with pytest.raises(ArgumentError, match="must be addition, characters or tiny, not 'huge'"):
        Session.named("huge")


@pytest.mark.slow
def test_addition_is_learnt_in_a_minute():
    session = Session.named("addition")
    take(session.learning.steps(1000, 3e-3))
    answers = [
        session.source.tokenizer.decode([session.position(text, len(text))["token"]["id"]])
        for text in ("12+34=", "12+34=0", "12+34=04", "99+99=", "99+99=1", "99+99=19")
    ]
    assert "".join(answers) == "046198"

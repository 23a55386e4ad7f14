"""Batches: which tokens come in each order, and that a restored stream goes on bit for bit."""

import json

import numpy as np
import pytest

from npgpt import ArgumentError
from npgpt.data.batches import ORDERS, make_batches
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens

EOT = 99


def open_ids(tmp_path, ids, description=None):
    """Tokens over two files that hold the ids."""
    for part, name in ((ids[:7], "a.bin"), (ids[7:], "b.bin")):
        write_tokens(tmp_path / name, part)
        if description:
            write_tokenizer(tmp_path / name, description)
    return open_tokens(tmp_path / "*.bin")


@pytest.fixture
def numbers(tmp_path):
    """The tokens 0 to 29."""
    return open_ids(tmp_path, list(range(30)))


@pytest.fixture
def documents(tmp_path):
    """Five documents: of two tokens, none, four, one, and a last one of five that has no end."""
    texts = [[1, 2], [], [3, 4, 5, 6], [7], [8, 9, 10, 11, 12]]
    return open_ids(tmp_path, [0, 0, *(id for text in texts for id in [EOT, *text])])


def rows(batches, count):
    """The next batches as pairs of lists: x's row and y's row."""
    pairs = []
    for _ in range(count):
        x, y = batches.next()
        assert x.shape == y.shape == (batches.B, batches.T)
        assert x.dtype == y.dtype == np.int64
        pairs += zip(x.tolist(), y.tolist(), strict=True)
    return pairs


def test_sequence_is_llm_cs(numbers):
    batches = make_batches(numbers, B=2, T=4)
    for start in (0, 8, 16, 0):  # from 24 on, fewer than 9 are left
        x, y = batches.next()
        np.testing.assert_array_equal(x.ravel(), np.arange(start, start + 8))
        np.testing.assert_array_equal(y, x + 1)


def test_sequence_takes_the_last_batch_that_fits_and_no_further(tmp_path):
    tokens = open_ids(tmp_path, list(range(17)))
    batches = make_batches(tokens, B=2, T=4)
    assert [batches.next()[0][0, 0] for _ in range(3)] == [0, 8, 0]


def test_random_rows_start_anywhere_and_depend_on_the_seed(numbers):
    starts = set()
    for x, y in rows(make_batches(numbers, B=4, T=4, order="random", seed=3), 200):
        assert x == list(range(x[0], x[0] + 4)) and y == [token + 1 for token in x]
        starts.add(x[0])
    assert starts == set(range(26))  # 25 and its last target, 29, included
    one, same, other = (
        rows(make_batches(numbers, B=4, T=4, order="random", seed=seed), 3) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_shuffle_sees_every_window_once_an_epoch(numbers):
    # 7 windows: epochs end within batches
    batches = make_batches(numbers, B=3, T=4, order="shuffle", seed=1)
    assert batches.n_rows == 7
    seen = [x[0] for x, y in rows(batches, 7)]
    epochs = [seen[:7], seen[7:14], seen[14:]]
    assert all(sorted(epoch) == [0, 4, 8, 12, 16, 20, 24] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    other = make_batches(numbers, B=3, T=4, order="shuffle", seed=2)
    assert [x[0] for x, y in rows(other, 7)] != seen
    x, y = batches.next()
    np.testing.assert_array_equal(y, x + 1)


def test_documents_are_rows_that_end_with_the_next_end_of_text(documents):
    batches = make_batches(documents, B=5, T=5, order="documents", eot=EOT)
    for _ in range(3):
        found = {tuple(x): y for x, y in rows(batches, 1)}
        assert found == {
            (EOT, 1, 2, EOT, EOT): [1, 2, EOT, -1, -1],
            (EOT, EOT, EOT, EOT, EOT): [EOT, -1, -1, -1, -1],
            (EOT, 3, 4, 5, 6): [3, 4, 5, 6, EOT],
            (EOT, 7, EOT, EOT, EOT): [7, EOT, -1, -1, -1],
            (EOT, 8, 9, 10, 11): [8, 9, 10, 11, 12],
        }


def test_documents_are_cut_at_T(documents):
    batches = make_batches(documents, B=5, T=2, order="documents", eot=EOT)
    found = {(*x, *y) for x, y in rows(batches, 1)}
    assert (EOT, 3, 3, 4) in found and (EOT, 7, 7, EOT) in found and (EOT, 8, 8, 9) in found


def test_a_batch_is_as_long_as_its_longest_row(tmp_path):
    lengths = 3, 17, 40, 100
    tokens = open_ids(tmp_path, [i for n in lengths for i in (EOT, *range(1, n))])
    alone = make_batches(tokens, B=1, T=64, order="documents", eot=EOT)
    found = {}
    for _ in lengths:
        x, y = alone.next()
        found[int((y >= 0).sum())] = x.shape[1]
    assert found == {3: 16, 17: 32, 40: 48, 64: 64}
    ranks = [make_batches(tokens, 2, 64, "documents", 0, EOT, rank=r, size=2) for r in range(2)]
    for rank in ranks:  # of a document of each rank, or its random numbers would be others
        x, y = rank.next()
        assert x.shape == y.shape == (2, 64)


def test_documents_come_in_another_order_each_epoch(documents):
    batches = make_batches(documents, B=2, T=8, order="documents", seed=4, eot=EOT)
    assert batches.n_rows == 5
    firsts = [y[0] for x, y in rows(batches, 50)]
    epochs = [tuple(firsts[i : i + 5]) for i in range(0, 100, 5)]
    assert all(sorted(epoch) == [1, 3, 7, 8, EOT] for epoch in epochs)
    assert len(set(epochs)) > 5


def test_no_row_is_without_a_target(tmp_path):
    tokens = open_ids(tmp_path, [EOT, 1, EOT, 2, EOT, 3, 4, 5, EOT])  # the last has none
    batches = make_batches(tokens, B=1, T=3, order="documents", eot=EOT)
    assert {y[0] for x, y in rows(batches, 20)} == {1, 2, 3}


def test_end_of_text_is_found_in_pieces(documents, monkeypatch):
    whole = rows(make_batches(documents, B=5, T=8, order="documents", eot=EOT), 1)
    monkeypatch.setattr("npgpt.data.batches.CHUNK", 2)
    assert rows(make_batches(documents, B=5, T=8, order="documents", eot=EOT), 1) == whole


def test_end_of_text_is_that_of_the_tokens_own_tokenizer(tmp_path):
    ids = [3, 0, 1, 3, 2, 0, 1, 3, 1]
    tokens = open_ids(tmp_path, ids, {"name": "chars", "characters": "abc"})
    assert rows(make_batches(tokens, 3, 4, "documents"), 1) == rows(
        make_batches(tokens, 3, 4, "documents", eot=3), 1
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("before", [0, 1, 4, 9])
def test_a_restored_stream_goes_on_bit_for_bit(order, before, documents):
    batches = make_batches(documents, 2, 4, order, seed=5, eot=EOT)
    for _ in range(before):
        batches.next()
    state = json.loads(json.dumps(batches.state()))
    expected = rows(batches, 12)
    again = make_batches(documents, 2, 4, order, seed=5, eot=EOT)
    again.restore(state)
    assert rows(again, 12) == expected
    again.restore(state)  # the state was not used up
    assert rows(again, 12) == expected
    another = make_batches(documents, 2, 4, order, seed=6, eot=EOT)
    if order != "sequence":
        assert rows(another, 12) != expected
    another.restore(state)  # the seed is in the state
    assert rows(another, 12) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_a_state_of_another_order_is_refused(order, documents):
    for other in ORDERS:
        state = make_batches(documents, 1, 4, other, eot=EOT).state()
        batches = make_batches(documents, 1, 4, order, eot=EOT)
        if other != order:
            with pytest.raises(ArgumentError, match=f"is of order {other}, but .* {order}$"):
                batches.restore(state)
        else:
            batches.restore(state)


GENERATOR = np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize(
    ("order", "state", "message"),
    [
        ("sequence", None, "is of order None, but these batches are of order sequence"),
        ("sequence", {}, "is of order None, but these batches are of order sequence"),
        ("sequence", {"order": "sequence"}, "position must be from 0 to 30 with these"),
        ("sequence", {"order": "sequence", "position": 31}, "30 with these tokens, not 31"),
        ("sequence", {"order": "sequence", "position": -1}, "not -1"),
        ("sequence", {"order": "sequence", "position": True}, "not True"),
        ("sequence", {"order": "sequence", "position": 1.0}, "not 1.0"),
        ("sequence", {"order": "sequence", "position": 0, "group": 8}, "group must be from 1 to 7"),
        ("sequence", {"order": "sequence", "position": 0, "group": 0}, "with these tokens, not 0"),
        ("sequence", {"order": "sequence", "position": 26, "left": 1}, "left must be from 0 to 0"),
        ("shuffle", {"order": "shuffle", "seed": 0, "epoch": 0, "place": 8}, "from 0 to 7"),
        ("shuffle", {"order": "shuffle", "seed": 0, "epoch": -1, "place": 0}, "epoch must be at"),
        ("shuffle", {"order": "shuffle", "seed": "0", "epoch": 0, "place": 0}, "seed must be at"),
        ("random", {"order": "random"}, "generator is damaged"),
        ("random", {"order": "random", "generator": []}, "generator is damaged"),
        ("random", {"order": "random", "generator": {}}, "generator is damaged"),
        (
            "random",
            {"order": "random", "generator": {**GENERATOR, "bit_generator": "MT19937"}},
            "generator is damaged",
        ),
        ("random", {"order": "random", "generator": {**GENERATOR, "state": 3}}, "is damaged"),
        (
            "random",
            {"order": "random", "generator": {**GENERATOR, "state": {"state": -1, "inc": 2**200}}},
            "is damaged",
        ),
        ("random", {"order": "random", "generator": {**GENERATOR, "uinteger": "x"}}, "is damaged"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(order, state, message, numbers):
    batches = make_batches(numbers, 2, 4, order)
    with pytest.raises(ArgumentError, match=message):
        batches.restore(state)
    assert rows(batches, 3) == rows(make_batches(numbers, 2, 4, order), 3)


@pytest.mark.parametrize(
    ("order", "enough", "message"),
    [
        (
            "sequence",
            13,
            "too few tokens: 12, but order sequence needs 13 at B=3, T=4: make B or T smaller",
        ),
        ("random", 5, "too few tokens: 4, but order random needs 5 at B=3, T=4: make T smaller"),
        ("shuffle", 5, "too few tokens: 4, but order shuffle needs 5 at B=3, T=4: make T smaller"),
        (
            "documents",
            2,
            r"needs end-of-text \(99\) before each document, but none starts in the 1 token$",
        ),
    ],
)
def test_too_few_tokens_are_refused(order, enough, message, tmp_path):
    ids = [EOT, *range(20)]
    write_tokens(tmp_path / "t.bin", ids[:enough])
    rows(make_batches(open_tokens(tmp_path / "t.bin"), 3, 4, order, eot=EOT), 5)
    write_tokens(tmp_path / "t.bin", ids[: enough - 1])
    with pytest.raises(ArgumentError, match=message):
        make_batches(open_tokens(tmp_path / "t.bin"), 3, 4, order, eot=EOT)


def test_documents_without_end_of_text_are_refused(numbers):
    with pytest.raises(ArgumentError, match="order documents needs eot: these token files come"):
        make_batches(numbers, 1, 4, "documents")
    with pytest.raises(ArgumentError, match="none starts in the 30 tokens"):
        make_batches(numbers, 1, 4, "documents", eot=EOT)
    for eot in (-1, 1.5, "x"):
        with pytest.raises(ArgumentError, match="eot must be an integer of at least 0"):
            make_batches(numbers, 1, 4, "documents", eot=eot)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"B": 0}, "B must be an integer of at least 1, not 0"),
        ({"T": -3}, "T must be an integer of at least 1, not -3"),
        ({"T": 2.0}, "T must be an integer of at least 1, not 2.0"),
        ({"B": True}, "B must be an integer of at least 1, not True"),
        ({"seed": -1}, "seed must be an integer of at least 0, not -1"),
        ({"order": "sorted"}, "order must be one of sequence, random, shuffle, documents, not"),
    ],
)
def test_bad_arguments_are_refused(options, message, numbers):
    with pytest.raises(ArgumentError, match=message):
        make_batches(numbers, **{"B": 1, "T": 4, **options})


@pytest.mark.parametrize("order", ORDERS)
def test_ranks_have_the_rows_of_one_with_all_of_them(documents, order):
    whole = make_batches(documents, 4, 2, order, seed=3, eot=EOT)
    ranks = [make_batches(documents, 2, 2, order, 3, EOT, rank=r, size=2) for r in range(2)]
    for _ in range(9):
        x, y = whole.next()
        parts = [batches.next() for batches in ranks]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), x)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), y)
        assert {batches.n_targets for batches in (whole, *ranks)} == {(y >= 0).sum()}
        assert all(batches.state() == whole.state() for batches in ranks)


@pytest.mark.parametrize("order", ORDERS)
def test_a_stream_goes_on_with_other_ranks_in_the_same_order(numbers, order):
    """Two ranks with batches of one row, then one rank with three, against one with two."""
    whole = rows(make_batches(numbers, 2, 4, order, eot=3), 24)
    before = make_batches(numbers, 1, 4, order, eot=3, rank=0, size=2)
    rows(before, 5)
    after = make_batches(numbers, 3, 4, order, eot=3)
    after.restore(json.loads(json.dumps(before.state())))
    assert rows(after, 3) == whole[10:19]
    last = make_batches(numbers, 1, 4, order, eot=3)
    last.restore(after.state())  # in the middle of a group
    assert rows(last, 9) == whole[19:28]


def test_too_few_tokens_for_all_ranks_are_refused(numbers):
    with pytest.raises(ArgumentError, match="30, but .* needs 33 at B=4, T=4 and 2 ranks"):
        make_batches(numbers, 4, 4, "sequence", size=2)

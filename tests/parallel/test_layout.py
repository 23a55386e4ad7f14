"""Which rank owns what of the flat buffer."""

import numpy as np
import pytest

import npgpt
from npgpt.core.parameters import Parameters, count_parameters
from npgpt.parallel import layout
from npgpt.parallel.layout import divide, make_layout
from npgpt.parallel.sharded import windows

CONFIG = npgpt.GPT2Config(block_size=8, vocab_size=257, n_layer=3, n_head=2, n_embd=8)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 50])
def test_each_parameter_has_one_owner(size):
    owners = np.full(count_parameters(CONFIG), -1)
    for parts in make_layout(CONFIG, size):
        assert len(parts) == size
        for rank, spans in enumerate(parts):
            for start, stop in spans:
                assert start < stop and (owners[start:stop] == -1).all()
                owners[start:stop] = rank
    counts = np.bincount(owners, minlength=size)
    assert counts.sum() == owners.size
    assert np.ptp(counts) <= 2 * layout.ALIGNMENT * len(make_layout(CONFIG, size))


def test_a_bucket_is_a_block_from_the_last_to_the_first_then_the_embeddings(monkeypatch):
    monkeypatch.setattr(layout, "LARGEST", 1000)
    marks = Parameters(CONFIG)
    for number, block in enumerate(reversed(marks.blocks)):
        for name in layout.BLOCK_NAMES:
            setattr(block, name, np.full_like(getattr(block, name), number))
    marks.lnfw[:] = marks.lnfb[:] = 0
    marks.wte[:] = marks.wpe[:] = 99
    spans = layout.bucket_spans(CONFIG)
    found = [{*np.concatenate([marks.flat[i:j] for i, j in each])} for each in spans]
    assert found == [{0}, {1}, {2}, *[{99}] * (len(spans) - 3)]
    assert len(spans) - 3 == -(-(257 + 8) * 8 // 1000)


def test_cuts_lie_on_cache_lines():
    parts = divide([(0, 100), (200, 300)], 3)
    assert parts == [[(0, 64)], [(64, 100), (200, 228)], [(228, 300)]]
    assert divide([(5, 10)], 2) == [[], [(5, 10)]]  # too few to share


@pytest.mark.parametrize("size", [1, 3])
def test_windows_are_the_whole_buffer_in_order_and_name_where_it_lies(size, monkeypatch):
    monkeypatch.setattr("npgpt.parallel.sharded.WINDOW", 500)
    found = make_layout(CONFIG, size)
    flat = np.arange(count_parameters(CONFIG))
    shards = [
        np.concatenate([flat[i:j] for parts in found for i, j in parts[r]]) for r in range(size)
    ]
    seen = []
    for window in windows(found):
        assert window[-1][1] - window[0][0] <= 500
        for start, stop, rank, at in window:
            np.testing.assert_array_equal(shards[rank][at : at + stop - start], flat[start:stop])
            seen.append((start, stop))
    assert seen[0][0] == 0 and seen[-1][1] == flat.size
    assert all(a[1] == b[0] for a, b in zip(seen, seen[1:], strict=False))

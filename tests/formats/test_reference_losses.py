"""Which losses a debug state has, and where they come from."""

import json

import numpy as np
import pytest

from npgpt import PUBLISHED, DebugState, FileError
from npgpt.formats.reference_losses import LOSSES_124M, find_losses, read_losses

GOOD = {"losses": [3.5, 2], "lr": 1e-3, "weight_decay": 0}


class Gradients:
    """Gradients by their config alone: those of 124M would take half a gigabyte."""

    def __init__(self, config):
        self.config = config


def state_124M(loss, B=4, T=64, config=PUBLISHED["124M"]):
    ids = np.zeros((B, T), np.int32)
    return DebugState(ids, ids, None, np.float32(loss), Gradients(config))


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_real_state_is_known_by_what_it_holds(tmp_path):
    write(tmp_path / "losses.json", GOOD)
    losses = find_losses(tmp_path / "any name", state_124M(LOSSES_124M[0]))
    assert losses.losses == LOSSES_124M
    assert (losses.lr, losses.weight_decay) == (1e-4, 0)


@pytest.mark.parametrize(
    "state",
    [
        state_124M(LOSSES_124M[0] + 1e-4),
        state_124M(LOSSES_124M[0], B=2),
        state_124M(LOSSES_124M[0], config=PUBLISHED["355M"]),
    ],
)
def test_another_state_of_the_same_name_is_not_taken_for_it(state, tmp_path):
    assert find_losses(tmp_path / "gpt2_124M_debug_state.bin", state) is None


@pytest.mark.parametrize("name", ["s.losses.json", "s.bin.losses.json", "losses.json"])
def test_losses_stand_beside_the_state(name, tmp_path):
    write(tmp_path / name, GOOD)
    losses = find_losses(tmp_path / "s.bin", state_124M(1))
    assert (losses.losses, losses.lr, losses.weight_decay) == ([3.5, 2], 1e-3, 0)
    assert losses.source.endswith(name)


def test_the_states_own_losses_come_before_the_folders(tmp_path):
    write(tmp_path / "losses.json", {**GOOD, "lr": 1})
    write(tmp_path / "s.losses.json", GOOD)
    assert find_losses(tmp_path / "s.bin", state_124M(1)).lr == 1e-3


def test_a_named_file_comes_first(tmp_path):
    path = write(tmp_path / "other.json", GOOD)
    assert find_losses(tmp_path / "s.bin", state_124M(LOSSES_124M[0]), path).losses == [3.5, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ([1], "must hold a JSON object"),
        ({"losses": [1]}, "must be an object with the keys"),
        ({**GOOD, "beta": 1}, "must be an object with the keys"),
        ({**GOOD, "losses": []}, "losses must be a list"),
        ({**GOOD, "losses": 3}, "losses must be a list"),
        ({**GOOD, "losses": ["1"]}, "losses must be a list"),
        ({**GOOD, "losses": [float("nan")]}, "losses must be a list"),
        ({**GOOD, "losses": [10**400]}, "losses must be a list"),
        ("[" * 100_000, "not JSON"),
        ({**GOOD, "lr": -1}, "lr must be a finite number of at least 0, not -1"),
        (
            {**GOOD, "weight_decay": None},
            "weight_decay must be a finite number of at least 0, not None",
        ),
    ],
)
def test_bad_losses_are_one_sentence(content, message, tmp_path):
    path = write(tmp_path / "l.json", content)
    with pytest.raises(FileError, match=f"l.json: {message}"):
        read_losses(path)


def test_losses_that_are_no_text_are_one_sentence(tmp_path):
    (tmp_path / "l.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not JSON"):
        read_losses(tmp_path / "l.json")

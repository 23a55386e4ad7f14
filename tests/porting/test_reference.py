"""Reference files by the oracle: right, of any shape, and the same bytes everywhere."""

import hashlib
import json

import numpy as np
import pytest
from helpers import ROOT
from porting.pairs import table

from npgpt import GPT2, GPT2Config, read_checkpoint, read_debug_state, test_gpt2
from npgpt.porting.reference import PAIR_UPDATES, PAIRS, make_pair, write_reference
from npgpt.tracing.record import Updates
from npgpt.tracing.seeded import random_batch, random_parameters
from npgpt.write_reference import main

# Of all files of the pairs of seed 0, in the order of their names: on every machine.
PAIRS_SHA256 = "5536eda80e5c8c97d0260dc51169b29b9662f539049625ed0667fddffc778d35"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    assert main(["--pairs", "--out", str(folder)]) == 0
    return folder


def test_the_pairs_are_the_same_bytes_everywhere(pairs):
    digest = hashlib.sha256()
    for path in [*sorted(pairs.glob("*.bin")), *sorted(pairs.glob("*.json"))]:
        digest.update(path.read_bytes())
    assert len([*pairs.iterdir()]) == 36
    assert round(sum(path.stat().st_size for path in pairs.iterdir()) / 1e6, 1) == 1.0
    assert digest.hexdigest() == PAIRS_SHA256


@pytest.mark.parametrize("name", PAIRS)
def test_the_textbook_in_float32_agrees_with_each_pair(name, pairs, capsys):
    options = ["--backend", "numpy", "--model", str(pairs / f"{name}.bin")]
    assert test_gpt2.main(options) == 0
    assert "NOT" not in capsys.readouterr().out
    state = pairs / f"{name}_debug_state.bin"
    content = bytearray(state.read_bytes())
    content[-4:] = np.float32(1e3).tobytes()
    state.with_name("other.bin").write_bytes(content)
    assert test_gpt2.main([*options, "--state", str(state.with_name("other.bin"))]) == 1
    state.with_name("other.bin").unlink()


@pytest.mark.parametrize("version", [1, 3, 5])
def test_each_version_of_the_model_file(version, tmp_path):
    config = GPT2Config(block_size=5, vocab_size=3, n_layer=1, n_head=1, n_embd=3)
    batch = random_batch(1, 1, 1, 3)
    (model, state, losses), found = write_reference(
        tmp_path, "m", random_parameters(config, 1), *batch, Updates(2, 1e-3, 0.1), version
    )
    params = read_checkpoint(model)
    written = read_debug_state(state, params)
    exact = GPT2(config, params=params, backend="numpy")
    np.testing.assert_allclose(written.logits, exact.forward(batch[0]), rtol=1e-5)
    assert written.loss == pytest.approx(exact.loss(*batch), rel=1e-5)
    content = json.loads(losses.read_text())
    assert content == {"losses": found, "lr": 1e-3, "weight_decay": 0.1} and len(found) == 2
    assert found[0] == pytest.approx(written.loss, rel=1e-6) and found[1] < found[0]


def test_the_command_makes_any_size(tmp_path, capsys):
    sizes = "--n-layer 1 --n-head 3 --n-embd 9 --vocab-size 7 --block-size 4 -B 2 --steps 1"
    assert main([*sizes.split(), "--seed", "5", "--name", "mine", "--out", str(tmp_path)]) == 0
    assert "B 2, T 4, L 1, NH 3, C 9, V 7, loss" in capsys.readouterr().out
    assert test_gpt2.main(["--backend", "numpy", "--model", str(tmp_path / "mine.bin")]) == 0
    before = (tmp_path / "mine.bin").read_bytes()
    main([*sizes.split(), "--seed", "6", "--name", "mine", "--out", str(tmp_path)])
    assert (tmp_path / "mine.bin").read_bytes() != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-T 41", "-T must be at most the block_size, 40, not 41"),
        ("-B 0", "-B must be at least 1, not 0"),
        ("--steps 0", "--steps must be at least 1, not 0"),
        ("--seed -1", "seed must be an integer from 0 to 4294967295, not -1"),
        ("--n-embd 50", "n_embd must be divisible by n_head: 50 by 4 is not"),
        ("--lr nan", "--lr must be a finite number"),
        ("--name a/b", "--name must be a name without folders, not a/b"),
        ("--pairs -B 2", "-B does not go with --pairs"),
        ("--pairs --size tiny", "--size does not go with --pairs"),
        ("--pairs --name x", "--name does not go with --pairs"),
        ("--pairs --steps 3", "--steps does not go with --pairs"),
        ("--pairs --lr 0", "--lr does not go with --pairs"),
        ("--pairs --weight-decay 0", "--weight-decay does not go with --pairs"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(options, words, tmp_path, capsys):
    assert main([*options.split(), "--out", str(tmp_path / "new")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_pairs_are_what_they_say():
    assert len(PAIRS) == 12
    for name, pair in PAIRS.items():
        params, x, y = make_pair(name)
        assert params.config == pair.config and x.shape == y.shape == (pair.B, pair.T)
        assert (y == -1).any() == pair.ignored
    assert len({pair.config for pair in PAIRS.values()}) > 7
    assert PAIR_UPDATES.steps == 10


@pytest.mark.slow
def test_the_table_of_the_page_is_what_making_each_mistake_shows():
    page = (ROOT / "doc" / "porting" / "pairs.md").read_text(encoding="utf-8")
    made = table()
    assert made in page
    rows = [line.split("|")[2:-1] for line in made.splitlines()[2:]]
    assert all(any(cell.strip() for cell in row) for row in rows)  # no mistake escapes all of them
    assert len(rows) >= 40

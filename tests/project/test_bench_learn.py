"""bench.learn: what it trains on, what it counts, and that a run ends where its goal is reached."""

import json
import math
import time

import numpy as np
import pytest

from bench import learn, recipes
from bench.recipes import GOALS, SYSTEMS, Goal, Recipe
from npgpt import GPT2Config
from npgpt.data.token_files import open_tokens
from npgpt.training.settings import make_settings

TEXT = "To be, or not to be, that is the question.\n" * 40
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "B": 2, "T": 8, "steps": 6, "lr": 1e-2}


@pytest.fixture
def data(tmp_path):
    """The token files of a text of tinyshakespeare's size of vocabulary."""
    letters = [chr(97 + i) if i < 26 else chr(0x3B1 + i) for i in range(65)]
    rng = np.random.default_rng(0)
    path = tmp_path / "text.txt"
    path.write_text("".join(letters) + "".join(rng.choice(letters, 900)), encoding="utf-8")
    learn.write_data(path, tmp_path)
    return tmp_path


def test_the_last_tenth_is_for_validation_as_in_nanogpt(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    learn.write_data(tmp_path / "text.txt", tmp_path)
    parts = [open_tokens(tmp_path / f"{name}.bin") for name in ("train", "val")]
    assert [len(part) for part in parts] == [int(0.9 * len(TEXT)), len(TEXT) - int(0.9 * len(TEXT))]
    characters = parts[0].tokenizer_description["characters"]
    assert characters == "".join(sorted(set(TEXT)))
    assert "".join(characters[i] for part in parts for i in part[:]) == TEXT


def test_every_recipe_can_be_trained_and_belongs_to_a_system():
    for goal in GOALS.values():
        assert "npgpt" in goal.recipes and goal.recipes.keys() <= SYSTEMS.keys()
        for recipe in goal.recipes.values():
            s = make_settings({"run": "a", "train": "b", **recipe.settings})
            GPT2Config(s.T, recipes.VOCAB_SIZE, s.n_layer, s.n_head, s.n_embd)
            assert (goal.loss is None) == (recipe.minutes > 0)


def test_the_steps_are_those_that_fit_into_the_time():
    recipe = Recipe({}, minutes=10)
    assert recipe.steps_in_time([9.0, 9.0, 0.5, 0.5], 100) == int(0.97 * 500 / 0.5)
    assert recipe.steps_in_time([1.0], 10_000) == 1


@pytest.mark.slow
def test_npgpt_trains_and_validates_on_all(data, monkeypatch):
    found = learn.run_npgpt(Recipe(TINY), data, 3, time.perf_counter())
    assert found["steps"] == 6 and found["uncounted"] == 0
    assert found["loss"] == pytest.approx(math.log(66), abs=0.3)
    assert learn.run_npgpt(Recipe(TINY), data, 4, 0.0)["loss"] != found["loss"]
    monkeypatch.setattr(Recipe, "steps_in_time", lambda self, seconds, passed: len(seconds) + 1)
    assert learn.run_npgpt(Recipe(TINY, minutes=1), data, 3, 0.0)["steps"] == learn.TIMED_STEPS + 1


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pytorch_ends_at_the_first_validation_that_gets_there(optimizer, data):
    pytest.importorskip("torch", reason="needs the extra `reference`")
    from bench.learn_pytorch import run_pytorch

    recipe = Recipe({**TINY, "optimizer": optimizer, "dropout": 0.1}, range(2, 7, 2))
    options = {"compiled": False, "bf16": False}
    whole = run_pytorch(recipe, options, 0.0, data, 0, 0.0)
    assert whole["steps"] == 6 and whole["uncounted"] > 0
    assert whole["loss"] == pytest.approx(math.log(65), abs=0.3)
    first = run_pytorch(recipe, options, 9.0, data, 0, 0.0)
    assert (first["steps"], first["uncounted"]) == (2, 0.0)


@pytest.mark.slow
def test_pytorchs_validation_is_npgpts(data):
    torch = pytest.importorskip("torch", reason="needs the extra `reference`")
    import npgpt
    from bench.learn_pytorch import make_model, validate
    from npgpt.evaluation.loss import mean_loss

    s = make_settings({**TINY, "dropout": 0.5})
    model = make_model(s)
    params = npgpt.Parameters(GPT2Config(s.T, 65, s.n_layer, s.n_head, s.n_embd))
    for (_, view), tensor in zip(params.items(), model.tensors(), strict=True):
        view[...] = tensor.numpy().reshape(view.shape)
    tokens = open_tokens(data / "val.bin")[:]
    expected = mean_loss(npgpt.GPT2(params.config, params=params), tokens, 4, s.T)
    assert validate(model, torch.from_numpy(tokens), s.T) == pytest.approx(expected, abs=1e-4)


def test_seconds_are_the_whole_process_s_but_for_what_does_not_count(tmp_path, monkeypatch):
    asked = []

    def child(module, *options):
        asked.append(options)
        time.sleep(0.05)
        return {"loss": 1.5, "steps": 7, "uncounted": 10.0}

    monkeypatch.setattr(learn, "child", child)
    goal = Goal(1.9, {"npgpt": Recipe(TINY), "PyTorch, eager": Recipe(TINY)})
    monkeypatch.setitem(GOALS, "test", goal)
    found = learn.measure("test", list(goal.recipes), 2, tmp_path)
    assert found["npgpt"]["loss"] == [1.5, 1.5] and found["npgpt"]["steps"] == [7, 7]
    assert all(0.05 - 10 <= second < 1 - 10 for second in found["npgpt"]["seconds"])
    seeds = [(options[1], options[-1]) for options in asked]
    assert sorted(seeds) == [(name, seed) for name in sorted(goal.recipes) for seed in (0, 1)]


@pytest.mark.slow
def test_one_system_prints_its_result(data, monkeypatch, capsys):
    monkeypatch.setitem(GOALS, "1.90", Goal(1.9, {"npgpt": Recipe(TINY)}))
    assert learn.main(["--only", "npgpt", "--goals", "1.90", "--data", str(data)]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6
    assert learn.main(["--only", "compile", "--goals", "1.90", "--data", str(data)]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == learn.TIMED_STEPS


def test_systems_can_be_chosen(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra `reference`")
    found = {"loss": 1.5, "steps": 7, "uncounted": 0.0}
    monkeypatch.setattr(learn, "child", lambda module, *options: dict(found))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    options = ["--text", str(tmp_path / "text.txt"), "--goals", "1.90", "--out", str(tmp_path)]
    assert learn.main([*options, "--rounds", "1", "--systems", "npgpt", "PyTorch, eager"]) == 0
    (path,) = tmp_path.glob("*/learn_1.90.json")
    result = json.loads(path.read_text())
    assert list(result["systems"]) == list(result["recipes"]) == ["npgpt", "PyTorch, eager"]


@pytest.mark.parametrize("has_bf16", [True, False])
def test_systems_are_those_of_the_cpus_precisions(has_bf16, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra `reference`")
    monkeypatch.setattr("npgpt.kernels.products.precision.has_bf16_hardware", lambda: has_bf16)
    found = {"loss": 1.5, "steps": 7, "uncounted": 0.0}
    monkeypatch.setattr(learn, "child", lambda module, *options: dict(found))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    options = ["--text", str(tmp_path / "text.txt"), "--goals", "1.90", "--out", str(tmp_path)]
    assert learn.main([*options, "--rounds", "1"]) == 0
    (path,) = tmp_path.glob("*/learn_1.90.json")
    systems = list(json.loads(path.read_text())["systems"])
    assert systems == [name for name in SYSTEMS if has_bf16 or "bf16" not in name]


def test_systems_are_compared_with_npgpt(capsys):
    with pytest.raises(SystemExit):
        learn.main(["--text", "a", "--systems", "PyTorch, eager"])
    assert "--systems must have npgpt among them" in capsys.readouterr().err


def test_without_a_text_it_says_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        learn.main([])
    assert "--text must name the file of the text" in capsys.readouterr().err

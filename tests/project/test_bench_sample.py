"""The sampling bench's arithmetic and what it refuses; GPT-2 124M is not run here."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY_MODEL

import npgpt
from bench import sample
from bench.peers import ctranslate2, llamacpp
from npgpt.wording import install_extra


def fake():
    """A system that takes no time but counts what it is asked for."""
    asked = []

    def system(prompt):
        def generate(count):
            asked.append(count)
            return np.zeros((1, prompt.shape[1] + count), int)

        return generate

    return system, asked


def test_a_run_is_timed_after_a_warm_up(monkeypatch):
    system, asked = fake()
    clock = iter([0.0, 2.0, 10.0, 14.0])
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", system)
    monkeypatch.setattr(sample.time, "perf_counter", lambda: next(clock))
    assert sample.run_one("npgpt", None, 1, 5, 8, 2) == [4.0, 2.0]
    assert asked == [sample.WARM_UP, 8, 8]


def test_a_system_that_stops_early_is_found(monkeypatch):
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", lambda prompt: lambda count: prompt)
    with pytest.raises(AssertionError):
        sample.run_one("npgpt", None, 1, 5, 8, 1)


def test_the_tokens_of_all_samples_count(monkeypatch):
    clock = iter([0.0, 2.0])
    generate = lambda prompt: lambda count: np.zeros((3, 5 + count), int)  # noqa: E731
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", generate)
    monkeypatch.setattr(sample.time, "perf_counter", lambda: next(clock))
    assert sample.run_one("npgpt", None, 3, 5, 8, 1) == [12.0]


def test_the_systems_take_turns_and_what_they_did_is_written(monkeypatch, capsys, tmp_path):
    asked, folders = [], []

    def child(module, *words):
        if module == "bench.peers":
            assert not asked and Path(words[0]).is_dir()
            folders.append(words[0])
            return {}
        only, name, *options = words
        asked.append(name)
        assert options[0] == "--model" and [options[1]] == folders
        assert options[2:] == ["-B", 1, "--prompt-tokens", 5, "--tokens", 7, "--runs", 2]
        return [60.0, 50.0, 70.0] if name == "npgpt" else [30.0, 20.0]

    monkeypatch.setattr(sample, "child", child)
    monkeypatch.setattr(ctranslate2, "systems", lambda: ["CTranslate2"])
    monkeypatch.setattr(llamacpp, "systems", lambda: ["llama.cpp, int8"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("bench.machine.find_spec", lambda name: None)
    words = "--prompt-tokens 5 --tokens 7 --rounds 2 --runs 2".split()
    assert sample.main([*words, "--out", str(tmp_path / "new")]) == 0
    assert sorted(asked) == sorted([*sample.SYSTEMS, "CTranslate2", "llama.cpp, int8", "limit"] * 2)
    assert not Path(folders[0]).exists()
    (path,) = (tmp_path / "new").glob("*/sample_5x7.json")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["systems"]["npgpt"] == [60.0, 50.0, 70.0] * 2
    assert written["limit"] == [30.0, 20.0] * 2 and "limit" not in written["systems"]
    out = capsys.readouterr().out
    assert "| npgpt | 60.0 (52.5 to 67.5) |  |" in out
    assert "| CTranslate2 | 25.0 (20.0 to 30.0) | 2.50 |" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "0"], "--tokens: must be at least 1, not 0"),
        (["--prompt-tokens", "1000"], "--prompt-tokens and --tokens must be at most 1024 together"),
        (["--prompt-tokens", "1020", "--tokens", "2"], "and --prompt-tokens at most 1016"),
        (["--only", "llama"], "must be one of "),
        (["--only", "llama.cpp"], "--only llama.cpp needs --model"),
        (["--only", "CTranslate2, int8"], "--only CTranslate2, int8 needs --model"),
        ([], f"torch is missing: {install_extra('bench')}"),
    ],
)
def test_bad_settings_are_refused(words, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        sample.main(["--out", str(tmp_path), *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_one_system_alone_prints_a_line_of_json(monkeypatch, capsys):
    monkeypatch.setitem(sample.SYSTEMS, "npgpt", fake()[0])
    sample.main(["--only", "npgpt", "--runs", "3"])
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_what_is_not_installed_is_left_out(monkeypatch):
    for peer in (ctranslate2, llamacpp):
        monkeypatch.setattr(peer, "find_spec", lambda name: None)
        assert peer.systems() == []


def test_the_limit_is_measured(monkeypatch):
    monkeypatch.setattr("npgpt.core.parameters.count_parameters", lambda config: 4000)
    (tokens_per_second,) = sample.limit()
    assert tokens_per_second > 1000


@pytest.mark.slow
def test_ctranslate2_generates_what_npgpt_does(tmp_path, rng):
    theirs = pytest.importorskip("ctranslate2", reason="needs ctranslate2")
    pytest.importorskip("transformers", reason="needs the extra `reference`")
    model = npgpt.GPT2.from_checkpoint(TINY_MODEL)
    ctranslate2.write(tmp_path, model.params)
    assert "CTranslate2" in ctranslate2.systems()
    prompt = rng.integers(0, model.config.vocab_size, (2, 9))
    ours = model.generate(prompt, 20, temperature=0)
    assert len(set(ours[0, 9:].tolist())) > 5
    np.testing.assert_array_equal(ctranslate2.generate(prompt, tmp_path)(20), ours)
    generator = theirs.Generator(str(tmp_path / "ctranslate2"), compute_type="float32")
    logits = np.array(generator.forward_batch(prompt.tolist()))
    np.testing.assert_allclose(logits, model.forward(prompt), atol=1e-3)


@pytest.mark.slow
def test_llamacpp_generates_what_npgpt_does(tmp_path, rng):
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    pytest.importorskip("gguf", reason="needs gguf")
    config = npgpt.GPT2Config(block_size=64, vocab_size=300, n_layer=2, n_head=2, n_embd=256)
    params = npgpt.Parameters.init(config, seed=1)  # its 4 bits need rows of 256
    params.flat *= 5
    llamacpp.write(tmp_path, params)
    assert llamacpp.systems() == list(llamacpp.FILE_TYPES)
    sizes = [llamacpp.path_of(tmp_path, system).stat().st_size for system in llamacpp.FILE_TYPES]
    assert all(2 * smaller < 1.4 * size for size, smaller in itertools.pairwise(sizes))
    prompt = rng.integers(0, config.vocab_size, (2, 9))
    # Not many tokens: it keeps keys and values in 16 bits, which decides where two are as likely.
    ours = npgpt.GPT2(config, params=params).generate(prompt, 7, temperature=0)
    assert len(set(ours[:, 9:].ravel().tolist())) > 7
    run = llamacpp.generate(prompt, tmp_path)
    for _ in range(2):  # the second time from the start again
        np.testing.assert_array_equal(run(7), ours)
    for system in llamacpp.FILE_TYPES:
        text = llamacpp.generate(prompt, tmp_path, system)(7)
        assert text.shape == ours.shape and text.max() < config.vocab_size
        assert "int4" in system or (text[:, 9] == ours[:, 9]).all(), system

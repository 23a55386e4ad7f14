"""What a run starts from: sizes, tokenizers, and what does not fit."""

import dataclasses
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest

import npgpt
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens
from npgpt.data.training_data import TrainingData
from npgpt.errors import ArgumentError, FileError
from npgpt.model import memory
from npgpt.training import run, start
from npgpt.training.settings import make_settings

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 8, "T": 8}


@pytest.fixture
def files(tmp_path):
    """Token files by name: of bytes, of characters, and without a tokenizer."""
    named = {}
    for name, description in (
        ("bytes", {"name": "bytes"}),
        ("abc", {"name": "chars", "characters": "abc"}),
        ("abd", {"name": "chars", "characters": "abd"}),
        ("none", None),
    ):
        path = tmp_path / f"{name}.bin"
        write_tokens(path, np.arange(300) % 3)
        if description:
            write_tokenizer(path, description)
        named[name] = str(path)
    return named


def model(settings):
    s = make_settings(settings)
    return start.make_model(s, TrainingData(s.train, s.val))


@pytest.mark.parametrize(
    "depth, heads, channels, published",
    [("d12", 12, 768, "124M"), ("d24", 16, 1024, "355M"), ("d48", 25, 1600, "1558M")],
)
def test_depths_are_the_published_sizes(depth, heads, channels, published):
    s = make_settings({"model": depth})
    config = start.config_from_scratch(s, re.fullmatch(r"d(\d+)", depth), None)
    assert (config.n_head, config.n_embd) == (heads, channels)
    assert config == npgpt.PUBLISHED[published]


def test_sizes_of_one_s_own(files):
    made = model({"train": files["bytes"], **SIZES})
    assert made.config == npgpt.GPT2Config(8, 257, 1, 2, 8)
    assert made.tokenizer.name == "bytes"
    made = model({"train": files["bytes"], **SIZES, "vocab_size": 300, "block_size": 16})
    assert (made.config.vocab_size, made.config.block_size) == (300, 16)


def test_tokens_without_a_tokenizer_are_gpt_2_s(files):
    made = model({"train": files["none"], **SIZES})
    assert made.config.vocab_size == 50257 and made.tokenizer is None


def test_the_seed_makes_the_weights(files):
    one, same, other = (
        model({"train": files["abc"], **SIZES, "seed": seed}).params.flat for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_other_tokenizers_are_refused(files, tmp_path):
    with pytest.raises(
        ArgumentError, match=r"--val .*abd.bin: the tokenizer is chars, but .*abc.bin"
    ):
        model({"train": files["abc"], "val": files["abd"], **SIZES})
    own = model({"train": files["abc"], **SIZES})
    npgpt.write_checkpoint(tmp_path / "m.bin", own.params)
    write_tokenizer(tmp_path / "m.bin", own.tokenizer.description)
    settings = {"model": str(tmp_path / "m.bin"), "T": 8}
    with pytest.raises(
        ArgumentError, match="--train .*abd.bin: the tokenizer is chars, but .*m.bin has chars"
    ):
        model({"train": files["abd"], **settings})
    assert model({"train": files["abc"], **settings}).tokenizer.characters == "abc"
    assert model({"train": files["none"], **settings}).tokenizer.characters == "abc"


def test_each_file_is_checked_for_tokens_beyond_the_vocabulary(files, tmp_path):
    write_tokens(tmp_path / "shard.bin", [1, 2, 77])
    with pytest.raises(
        FileError, match="shard.bin: token 77 is outside the model's vocabulary of 4"
    ):
        model({"train": files["abc"], "val": str(tmp_path / "shard.bin"), **SIZES})


def test_a_step_that_does_not_fit_into_memory_is_refused(files, monkeypatch, capsys):
    settings = {"train": files["bytes"], **SIZES}
    model(settings)
    assert capsys.readouterr().out.startswith("memory of a step: 170 MB: ")
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000_000)
    with pytest.raises(ArgumentError) as caught:
        model(settings)
    assert str(caught.value) == (
        "a step takes 170 MB of memory, but 100 MB is available: take a smaller model, or a machine"
        " with more memory"
    )


def memory_refused(monkeypatch, available, **options):
    """What check_memory says of a step of GPT-2 at B=8, T=1024 where there is less memory."""
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    settings = {"B": 8, "T": 1024, "recompute": False, "optimizer": "adamw", "quiet": True}
    with pytest.raises(ArgumentError) as caught:
        memory.check_memory(npgpt.GPT2Config(), **{**settings, **options})
    return str(caught.value)


def test_what_takes_less_memory_is_named_with_its_size(monkeypatch):
    said = memory_refused(monkeypatch, 5_000_000_000)
    whole = npgpt.estimate(npgpt.GPT2Config(), 8, 1024).total
    assert said.startswith(f"a step takes {whole / 1e9:.2f} GB of memory, but 5.00 GB is available")
    by = {"-B 4": (4, 1024), "-T 512": (8, 512)}
    for option, (B, T) in by.items():
        need = npgpt.estimate(npgpt.GPT2Config(), B, T).total
        assert need <= 5e9 and f"{option} ({need / 1e9:.2f} GB)" in said
    for name, value in (("n_layer", 6), ("n_embd", 384)):
        config = dataclasses.replace(npgpt.GPT2Config(), **{name: value})
        need = npgpt.estimate(config, 8, 1024).total
        assert need <= 5e9 and f"--{name.replace('_', '-')} {value} ({need / 1e9:.2f} GB)" in said


def test_ranks_of_a_host_share_its_memory(monkeypatch):
    whole = npgpt.estimate(npgpt.GPT2Config(), 8, 1024, shards=2)
    said = memory_refused(monkeypatch, 2 * whole.total - 2, shards=2, ranks_here=2)
    assert said.startswith(f"a step takes {whole.total / 1e9:.2f} GB of memory for each of 2 ranks")
    need = npgpt.estimate(npgpt.GPT2Config(), 4, 1024, shards=2).total
    assert f"-B 4 ({need / 1e9:.2f} GB)" in said
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * whole.total)
    settings = {"B": 8, "T": 1024, "recompute": False, "optimizer": "adamw", "quiet": True}
    memory.check_memory(npgpt.GPT2Config(), **settings, shards=2, ranks_here=2)


def test_what_cannot_be_changed_is_not_named(monkeypatch):
    recompute = npgpt.estimate(npgpt.GPT2Config(), 8, 1024, recompute=True).total
    resumed = memory_refused(monkeypatch, recompute, resumed=True)
    assert resumed.endswith(f"is available: take --recompute ({recompute / 1e9:.2f} GB)")
    blocks = npgpt.estimate(npgpt.GPT2Config(), 8, 1024, recompute="blocks").total
    for before in (False, True):
        more = memory_refused(monkeypatch, blocks, resumed=True, recompute=before)
        assert more.endswith(f"is available: take --recompute-blocks ({blocks / 1e9:.2f} GB)")
    again = memory_refused(monkeypatch, blocks - 1, resumed=True, recompute="blocks")
    assert again.endswith("take a machine with more memory")
    of_a_file = memory_refused(monkeypatch, 3_000_000_000, loaded=500_000_000)
    assert "-B 1 (" in of_a_file and "--n-layer" not in of_a_file


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(files, monkeypatch, tmp_path):
    settings = {"train": files["bytes"], **SIZES, "run": str(tmp_path / "deep" / "run")}
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(
        ArgumentError, match=r"4 checkpoints of \d+ kB .* do not fit into the 100 kB"
    ):
        model(settings)
    assert not (tmp_path / "deep").exists()


def test_available_memory_is_that_of_the_machine_or_its_container():
    free = memory.available_memory()
    assert free is None or 10_000_000 < free < 10**14


def test_the_time_of_a_step_follows_from_one_product(monkeypatch):
    made = npgpt.GPT2(npgpt.GPT2Config(64, 257, 2, 2, 64), backend="numpy")
    B, T, C, grad_accum_steps = 16, 64, 64, 8
    seconds = 0.001  # what the product x @ w.T takes on this clock, w being (4C, C)
    monkeypatch.setattr(start.time, "perf_counter", itertools.count(0, seconds).__next__)
    rate = 2 * B * T * 4 * C * C / seconds  # flops a second
    products = 6 * B * T * made.params.flat.size + 2 * 12 * B * T * T * C / 2
    expected = start.OVERHEAD * grad_accum_steps * products / rate
    assert start.estimate_step_seconds(made, B, T, grad_accum_steps) == pytest.approx(expected)

"""`npgpt sample`: whole characters as they are made, every option, and bad input."""

import io
import sys

import numpy as np
import pytest

import npgpt
from npgpt import GPT2Config, Parameters
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.tokenizer import BytesTokenizer, get_tokenizer
from npgpt.model import text as model_text
from npgpt.model.text import TextStream
from npgpt.sample import main

REPLACEMENT = "\ufffd"


def write_model(path, said=b"", V=257, tokenizer="bytes"):
    """A model file. After the first token it says these bytes, then it repeats the last one.

    Its embeddings are the unit vectors; that of a position is the one of the byte that follows.
    """
    params = Parameters(GPT2Config(max(30, len(said)), V, 1, 1, V))
    params.wte[:] = np.eye(V)
    params.wpe[range(len(said)), list(said)] = 9
    params.lnfw[:] = params.lnfb[:] = 1
    npgpt.write_checkpoint(path, params)
    if tokenizer:
        write_tokenizer(path, {"name": tokenizer})
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def shells(folder):
    """It says the whole sentence."""
    return write_model(folder / "shells.bin", b"she sells sea shells by the sea shore")


@pytest.fixture(scope="module")
def fresh(folder):
    """A model as it is before training: nearly everything is drawn."""
    path = folder / "fresh.bin"
    npgpt.write_checkpoint(path, Parameters.init(GPT2Config(16, 257, 1, 1, 8)))
    write_tokenizer(path, {"name": "bytes"})
    return str(path)


def run(capsys, *words):
    """Status 0, and what was printed."""
    assert main([*words, "--backend", "numpy"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def refused(capsys, *words):
    """Status 2 and nothing printed but one sentence, which is returned."""
    try:
        status = main([*words, "--backend", "numpy"])
    except SystemExit as stopped:  # by argparse
        status = stopped.code
    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_it_goes_on_with_the_prompt(shells, backend, capsys):
    words = ["--model", shells, "--prompt", "she", "--tokens", "22", "--greedy"]
    assert main([*words, "--backend", backend]) == 0
    assert capsys.readouterr().out == "she sells sea shells by t\n"


def test_without_a_prompt_it_starts_from_end_of_text_which_is_not_shown(folder, capsys):
    said = write_model(folder / "said.bin", b"after the end")
    assert run(capsys, "--model", said, "--tokens", "13", "--greedy") == "after the end\n"
    assert run(capsys, "--model", said, "--tokens", "5", "--greedy") == "after\n"
    assert run(capsys, "--model", said, "--max-new-tokens", "5", "--greedy") == "after\n"


def test_the_default_is_a_hundred_tokens(shells, capsys):
    assert len(run(capsys, "--model", shells, "--prompt", "a", "--greedy")) == 1 + 100 + 1


class Screen(io.StringIO):
    """Remembers what was written and flushed at a time."""

    def __init__(self):
        super().__init__()
        self.flushed = []

    def flush(self):
        self.flushed.append(self.getvalue()[sum(map(len, self.flushed)) :])


def test_text_is_shown_as_it_is_made_and_by_whole_characters(folder, monkeypatch):
    said = "Grüße: ∑ 👍."
    model = write_model(folder / "greetings.bin", said.encode())
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    count = len(said.encode())
    assert main(["--model", model, "--greedy", "--tokens", str(count), "--backend", "numpy"]) == 0
    assert [piece for piece in screen.flushed if piece] == list(said)
    assert len(screen.flushed) > count  # flushed after each token


def test_half_a_character_at_the_end_is_a_replacement(folder, capsys):
    model = write_model(folder / "half.bin", "a👍".encode())
    assert run(capsys, "--model", model, "--greedy", "--tokens", "4") == f"a{REPLACEMENT}\n"


@pytest.mark.parametrize(
    ("said", "stop", "pieces", "end"),
    [
        (b"abc", None, ["a", "b", "c"], ""),
        (b"abcd", "c", ["a", "b", "", ""], ""),
        (b"abcd", "bc", ["a", "", "", ""], ""),
        (b"abbc", "bc", ["a", "", "b", ""], ""),
        (b"aabaac", "aac", ["", "", "aab", "", "", ""], ""),
        (b"aaab", "aab", ["", "", "a", ""], ""),
        (b"ab", "bc", ["a", ""], "b"),
        ("aé".encode(), "é", ["a", "", ""], ""),
        ("é∑".encode(), "∑!", ["", "é", "", "", ""], "∑"),
        ("é".encode()[:1], "x", [""], REPLACEMENT),
        ("é".encode()[:1], REPLACEMENT, [""], ""),
        (b"\xff\xffa", None, [REPLACEMENT, REPLACEMENT, "a"], ""),
    ],
)
def test_a_text_holds_back_what_may_be_the_stop_or_half_a_character(said, stop, pieces, end):
    text = TextStream(BytesTokenizer(), stop)
    assert [text.add(byte) for byte in said] == pieces
    assert text.end() == end


def test_characters_of_several_gpt2_tokens_come_whole(shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    tokenizer = get_tokenizer("gpt2")
    said = "👍🏽 is 𝔤𝔬𝔬𝔡 — 漢字"
    text = TextStream(tokenizer)
    pieces = [text.add(token) for token in tokenizer.encode(said)]
    assert "".join(pieces) == said and "" in pieces
    assert text.end() == ""


def test_what_comes_after_the_stop_is_not_shown():
    text = TextStream(BytesTokenizer(), "b")
    assert "".join(text.add(byte) for byte in b"abcabc") == "a"
    assert text.ended and text.end() == ""


@pytest.mark.parametrize("stop", ["ls", "ls sea", "s sea s", "l"])
def test_it_ends_before_the_stop(shells, stop, capsys):
    words = ["--model", shells, "--prompt", "s", "--tokens", "30", "--greedy", "--stop", stop]
    whole = "she sells sea shells by"
    assert run(capsys, *words) == whole[: whole.index(stop)] + "\n"


def test_a_stop_in_the_prompt_does_not_count(shells, capsys):
    words = ["--model", shells, "--prompt", "she", "--tokens", "6", "--greedy", "--stop", "he"]
    assert run(capsys, *words) == "she sells\n"


def test_no_more_tokens_are_made_after_the_stop(shells, capsys, monkeypatch):
    made = []

    def counted(*args, whole=model_text.stream_tokens, **options):
        for tokens in whole(*args, **options):
            made.append(tokens)
            yield tokens

    monkeypatch.setattr(model_text, "stream_tokens", counted)
    words = ["--model", shells, "--prompt", "s", "--tokens", "30", "--greedy", "--stop", "sells"]
    run(capsys, *words)
    assert len(made) == len("he sells")


def test_end_of_text_can_be_the_stop(folder, capsys):
    path = folder / "ending.bin"
    write_model(path, b"abc")
    params = npgpt.read_checkpoint(path)
    params.wpe[3, 256] = 9
    npgpt.write_checkpoint(path, params)
    words = ["--model", str(path), "--tokens", "9", "--greedy"]
    assert run(capsys, *words).startswith("abc<|endoftext|>")
    assert run(capsys, *words, "--stop", "<|endoftext|>") == "abc\n"


def test_several_samples_follow_each_other_under_headings(fresh, capsys):
    words = ["--model", fresh, "--prompt", "ab", "--tokens", "20", "--seed", "1"]
    out = run(capsys, *words, "--samples", "3")
    parts = out.split("--- sample ")
    assert parts[0] == ""
    texts = []
    for i, part in enumerate(parts[1:], start=1):
        assert part.startswith(f"{i} of 3 ---\nab") and part.endswith("\n")
        texts.append(part.removeprefix(f"{i} of 3 ---\n"))
    assert len(set(texts)) == len(texts) == 3
    assert run(capsys, *words, "--samples", "3") == out


def test_of_several_samples_each_ends_at_its_own_stop(fresh, capsys):
    words = ["--model", fresh, "--prompt", "ab", "--tokens", "300", "--seed", "1"]
    free = run(capsys, *words, "--samples", "3").split("\n--- sample ")
    ended = run(capsys, *words, "--samples", "3", "--stop", "e").split("\n--- sample ")
    assert len(free) == len(ended) == 3
    for long, short in zip(free, ended, strict=True):
        head, long = long.split("---\nab")
        assert "e" in long
        assert short.strip("\n") == f"{head}---\nab{long[: long.index('e')]}".strip("\n")


def test_a_seed_draws_the_same_again(fresh, capsys):
    words = ["--model", fresh, "--tokens", "30", "--seed"]
    assert run(capsys, *words, "1") == run(capsys, *words, "1") != run(capsys, *words, "2")


def test_without_a_seed_every_run_is_another(fresh, capsys):
    words = ["--model", fresh, "--tokens", "30"]
    assert run(capsys, *words) != run(capsys, *words)


@pytest.mark.parametrize(
    "options", [("--temperature", "1e-9"), ("--top-k", "1"), ("--top-p", "1e-9")]
)
def test_options_that_leave_the_likeliest_alone_are_greedy(fresh, options, capsys):
    words = ["--model", fresh, "--prompt", "abc", "--tokens", "20"]
    greedy = run(capsys, *words, "--greedy")
    assert run(capsys, *words, *options) == greedy
    assert run(capsys, *words, "--seed", "1") != greedy


def test_the_repetition_penalty_makes_repeating_rare(folder, capsys):
    model = write_model(folder / "repeating.bin")
    words = ["--model", model, "--prompt", "a", "--tokens", "20", "--greedy"]
    assert run(capsys, *words) == "a" * 21 + "\n"
    assert run(capsys, *words, "--repetition-penalty", "1000") != "a" * 21 + "\n"


def test_the_prompt_can_be_in_a_file(shells, tmp_path, capsys):
    path = tmp_path / "prompt.txt"
    path.write_text("sh")
    words = ["--model", shells, "--tokens", "7", "--greedy"]
    assert run(capsys, *words, "--prompt-file", str(path)) == "she sells\n"


def test_a_prompt_can_be_longer_than_the_model_sees(fresh, capsys):
    out = run(capsys, "--model", fresh, "--prompt", "a" * 50, "--tokens", "40", "--greedy")
    assert out.startswith("a" * 50)


def test_the_tokenizer_can_be_named(shells, folder, capsys):
    model = write_model(folder / "nameless.bin", b"abc", tokenizer=None)
    words = ["--model", model, "--prompt", "a", "--tokens", "2", "--greedy"]
    assert run(capsys, *words, "--tokenizer", "bytes") == "abc\n"
    message = refused(capsys, *words)
    assert f"{model}: no tokenizer is known for this model: pass one with --tokenizer" in message


def test_a_token_beyond_the_tokenizer_is_a_replacement(folder, capsys):
    path = folder / "padded.bin"
    write_model(path, b"abc", V=260)
    params = npgpt.read_checkpoint(path)
    params.wpe[1] = 0
    params.wpe[1, 259] = 9
    npgpt.write_checkpoint(path, params)
    out = run(capsys, "--model", str(path), "--tokens", "3", "--greedy")
    assert out == f"a{REPLACEMENT}c\n"


def test_each_line_that_is_typed_is_gone_on_with(shells, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("sh\n\nshe sells\n"))
    words = ["--model", shells, "--interactive", "--tokens", "4", "--greedy"]
    assert run(capsys, *words) == "she se\nshe sells sea\n"


def test_a_line_that_cannot_be_encoded_is_told_and_the_next_one_taken(folder, capsys, monkeypatch):
    path = folder / "chars.bin"
    write_model(path, b"", V=3, tokenizer=None)
    write_tokenizer(path, {"name": "chars", "characters": "ab"})
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\na\n"))
    words = ["--model", str(path), "--interactive", "--tokens", "3", "--greedy"]
    assert main([*words, "--backend", "numpy"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "aaaa\n"
    assert shown.err.startswith("error: the text has 'x'") and shown.err.count("\n") == 1
    assert "the text has 'x'" in refused(capsys, "--model", str(path), "--prompt", "x")


def test_what_is_typed_must_be_text(shells, capsys, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    message = refused(capsys, "--model", shells, "--interactive")
    assert message == "error: standard input must be UTF-8 text\n"


def test_on_a_terminal_there_is_a_prompt(shells, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    asked = []

    def typed(prompt):
        asked.append(prompt)
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", typed)
    run(capsys, "--model", shells, "--interactive")
    assert asked == ["> "]


def test_an_interruption_ends_the_line_and_the_program(shells, capsys, monkeypatch):
    def interrupted(model, tokens, *args, **options):
        yield np.array([ord("h")])
        raise KeyboardInterrupt

    monkeypatch.setattr(model_text, "stream_tokens", interrupted)
    assert main(["--model", shells, "--prompt", "s", "--backend", "numpy"]) == 130
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("sh\n", "interrupted\n")


def test_what_the_output_cannot_hold_is_replaced(folder, monkeypatch):
    model = write_model(folder / "thumb.bin", "a👍b".encode())
    paper = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", paper)
    assert main(["--model", model, "--greedy", "--tokens", "6", "--backend", "numpy"]) == 0
    assert paper.buffer.getvalue() == b"a?b\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "0"], "--tokens must be at least 1, not 0"),
        (["--samples", "0"], "--samples must be at least 1, not 0"),
        (["--promt", "a"], "there is no option --promt; did you mean --prompt?"),
        (["--prompt", "a", "b"], "2 words follow it: quote what has spaces: --prompt 'a b'"),
        (["--tokens", "many"], "--tokens/--max-new-tokens: must be a whole number, not 'many'"),
        (["--temperature", "-1"], "temperature must be finite and at least 0, not -1.0"),
        (["--top-k", "0"], "top_k must be an integer of at least 1, not 0"),
        (["--top-p", "1.5"], "top_p must be above 0 and at most 1, not 1.5"),
        (["--repetition-penalty", "0"], "repetition_penalty must be a finite number above 0"),
        (["--seed", "-1"], "seed must be an integer of at least 0, or several, not -1"),
        (["--prompt", ""], "--prompt must not be empty"),
        (["--stop", ""], "--stop must not be empty"),
        (["--prompt", "a", "--interactive"], "not allowed with argument --prompt"),
        (["--greedy", "--temperature", "1"], "not allowed with argument"),
        (["--tokenizer", "words"], "--tokenizer: must be one of gpt2, bytes, not 'words'"),
        (["--prompt-file", "missing.txt"], "missing.txt: No such file or directory"),
    ],
)
def test_bad_options_are_one_sentence(shells, words, message, capsys):
    assert message in refused(capsys, "--model", shells, *words)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"a\xff", "not UTF-8 text")])
def test_a_bad_prompt_file_is_one_sentence(shells, content, message, tmp_path, capsys):
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)
    shown = refused(capsys, "--model", shells, "--prompt-file", str(path))
    assert f"{path}: " in shown and message in shown


def test_a_bad_model_is_one_sentence(capsys, tmp_path):
    assert "nothing.bin" in refused(capsys, "--model", str(tmp_path / "nothing.bin"))
    assert "--model" in refused(capsys)


def test_a_tokenizer_that_is_not_the_models_is_one_sentence(folder, capsys):
    words = ["--model", write_model(folder / "small.bin", V=99), "--greedy"]
    expected = "the prompt has the token 256 of the tokenizer bytes, but the model's vocabulary"
    assert expected in refused(capsys, *words, "--prompt", "cat")
    assert expected in refused(capsys, *words)

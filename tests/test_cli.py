"""How options are spelled in all programs: hyphens shown, underscores accepted, values kept."""

import fnmatch
import re
import tomllib
from importlib import import_module

import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL

from npgpt import evaluate, prepro_text, sample, train_gpt2
from npgpt.__main__ import PROGRAMS, main
from npgpt.cli import (
    NEEDED,
    PATTERN,
    Parser,
    add_batch_size,
    add_seq_len,
    hyphenated,
    like,
    program,
)
from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.training.settings import read_toml

SENTENCE = (
    "there is no setting final_lr: final_lr_fraction is a fraction of lr, such as 0.1, and"
    " min_lr a learning rate, such as 6e-5"
)


@pytest.fixture
def tokens(tmp_path, rng):
    path = tmp_path / "train.bin"
    write_tokens(path, rng.integers(97, 123, 400))
    write_tokenizer(path, {"name": "bytes"})
    return path


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("--val_every", "--val-every"),
        ("--val-every", "--val-every"),
        ("--val_every=a_b", "--val-every=a_b"),
        ("--val_every=--a_b", "--val-every=--a_b"),
        ("--x=y=z_z", "--x=y=z_z"),
        ("a_b", "a_b"),
        ("-a_b", "-a_b"),
        ("-B", "-B"),
        ("_", "_"),
        ("--", "--"),
        ("", ""),
    ],
)
def test_underscores_of_an_option_are_hyphens_and_those_of_a_value_stay(given, taken):
    assert hyphenated(given) == taken


def test_an_abbreviation_is_refused(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--some-n=a"])
    said = "there is no option --some-n; did you mean --some-name?"
    assert capsys.readouterr().err == f"error: {said} (see p --help)\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--some-nmae", "a"], "there is no option --some-nmae; did you mean --some-name?"),
        (["--some_nmae=a"], "there is no option --some-nmae; did you mean --some-name?"),
        (["-some-name", "a"], "there is no option -some-name; did you mean --some-name?"),
        (["--nothing-like-it"], "there is no option --nothing-like-it"),
        (["--hepl"], "there is no option --hepl"),
        (["--old-name", "a"], "there is no option --old-name; it is called --some-name"),
        (["--patern", "a"], "there is no option --patern; did you mean --pattern?"),
        (["-T", "x"], "-T/--T/--seq-len: must be a whole number, not 'x'"),
        (["--share", "x"], "--share: must be a number, not 'x'"),
        (["--choice", "c"], "--choice: must be one of a, b, not 'c'"),
        (["--pattern"], "--pattern: expected one argument"),
        ([], "the following arguments are required: --pattern"),
        (["word"], "word must follow the option that it belongs to"),
        (["-B3", "word"], "word must follow the option that it belongs to"),
        (["--on-it", "word"], "--on-it takes no argument, but word follows it"),
        (
            ["--some-name", "two", "words", "-T", "3"],
            "--some-name takes one argument, but 2 words follow it: quote what has spaces:"
            " --some-name 'two words'",
        ),
        (
            ["--some_name=two", "words"],
            "--some-name takes one argument, but 2 words follow it: quote what has spaces:"
            " --some-name 'two words'",
        ),
        (
            ["--pattern", "a_1.bin", "a_2.bin", "a_30.bin"],
            "--pattern takes one argument, but 3 words follow it: quote a pattern, or the shell"
            " puts its files there: --pattern 'a_*.bin'",
        ),
        (
            ["--some-name", "a_1.bin", "a_2.bin"],
            "--some-name takes one argument, but 2 words follow it",
        ),
    ],
)
def test_what_is_mistyped_is_one_sentence_with_what_may_be_meant(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("a_1.bin", "a_2.bin", "a_30.bin"):
        (tmp_path / name).touch()
    others = {"--old-name": "there is no option --old-name; it is called --some-name"}
    parser = Parser(prog="p", other_name=others.get)
    parser.add_argument("--some-name")
    parser.add_argument("--on-it", action="store_true")
    parser.add_argument("--share", type=float)
    parser.add_argument("--choice", choices=["a", "b"])
    parser.add_argument("--pattern", metavar=PATTERN, required="--pattern" in said)
    add_batch_size(parser, "")
    add_seq_len(parser, "")
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {said} (see p --help)\n"


def test_a_word_too_many_after_positional_ones(capsys):
    parser = Parser(prog="p")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("--version", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["a", "--version", "3", "b"])
    assert capsys.readouterr().err == (
        "error: b is one argument too many after SOURCE (see p --help)\n"
    )


def test_a_pattern_that_names_are_like():
    for names in (["a.bin", "ab.bin"], ["d/x_1.bin", "d/x_12.bin"], ["aa", "aaa"], ["a", "b"]):
        assert all(fnmatch.fnmatch(name, like(names)) for name in names)
    assert like(["d/x_1.bin", "d/x_12.bin"]) == "d/x_1*.bin"


def parser():
    parser = Parser(prog="p")
    parser.add_argument("--some-name")
    parser.add_argument("--on-it", action="store_true")
    parser.add_argument("rest", nargs="*")
    add_batch_size(parser, "", default=4)
    add_seq_len(parser, "")
    return parser


@pytest.mark.parametrize("words", [["--some_name", "a_b"], ["--some-name=a_b"]])
def test_both_ways_to_spell_an_option_are_one(words):
    args = parser().parse_args([*words, "--on_it", "c_d"])
    assert (args.some_name, args.on_it, args.rest) == ("a_b", True, ["c_d"])


def test_after_two_hyphens_nothing_is_an_option():
    args = parser().parse_args(["--some_name", "a", "--", "--b_c", "--some_name"])
    assert args.some_name == "a" and args.rest == ["--b_c", "--some_name"]


def test_without_arguments_it_takes_the_commands(monkeypatch):
    monkeypatch.setattr("sys.argv", ["p", "--some_name", "a_b", "-T", "3"])
    args = parser().parse_args()
    assert (args.some_name, args.B, args.T) == ("a_b", 4, 3)


B_SPELLINGS = ("-B", "--B", "--batch-size", "--batch_size")
T_SPELLINGS = ("-T", "--T", "--seq-len", "--seq_len")


def parsed(program, words):
    """The B and T that a program makes of its command line."""
    if program == "train":
        settings = train_gpt2.parse(words, "npgpt train")
        return settings.get("B"), settings.get("T")
    args = evaluate.parse([*words, "--model", "m", "--tokens", "t"], "npgpt eval")
    return args.B, args.T


@pytest.mark.parametrize("program", ["train", "eval"])
def test_batch_size_and_length_are_spelled_alike(program):
    for b, t in zip(B_SPELLINGS, T_SPELLINGS, strict=True):
        assert parsed(program, [b, "3", t, "8"]) == (3, 8)
        joined = [f"{b}=3", f"{t}=8"] if b.startswith("--") else [f"{b}3", f"{t}8"]
        assert parsed(program, joined) == (3, 8)
    assert parsed(program, []) == (None, None)


def test_train_takes_the_short_ones(tmp_path, tokens):
    words = ["train", "--train", str(tokens), "--run", str(tmp_path / "run"), "-T", "8", "-B", "2"]
    sizes = ["--n_layer", "1", "--n-head", "1", "--n_embd", "4", "--steps", "1"]
    assert main([*words, *sizes]) == 0
    settings = read_toml(tmp_path / "run" / "settings.toml")
    assert (settings["B"], settings["T"], settings["n_embd"]) == (2, 8, 4)


def test_eval_takes_the_long_ones(tmp_path, tokens, capsys):
    command = ["eval", "--model", str(TINY_MODEL), "--tokens", str(tokens), "--batches", "2"]
    shown = []
    for words in (["-B", "3", "-T", "8"], ["--batch_size", "3", "--seq-len", "8"]):
        assert main([*command, *words]) == 0
        shown.append(capsys.readouterr().out.splitlines()[:3])
    assert shown[0] == shown[1] and shown[0][2].split() == ["tokens", "48"]


@pytest.mark.parametrize("option", ["--final_lr", "--final-lr", "--final_lr=0.1"])
def test_final_lr_is_refused_with_the_two_that_it_may_mean(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        train_gpt2.main([option, "0.1"])
    assert stopped.value.code == 2
    said = (
        "there is no option --final-lr: --final-lr-fraction is a fraction of --lr, such as 0.1, and"
        " --min-lr a learning rate, such as 6e-5"
    )
    assert capsys.readouterr().err.startswith(f"error: {said} (see ")


def test_final_lr_is_refused_in_a_settings_file(tmp_path, capsys):
    (tmp_path / "s.toml").write_text("final_lr = 0.1\n")
    assert train_gpt2.main(["--config", str(tmp_path / "s.toml")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 's.toml'}: {SENTENCE}\n"


@pytest.mark.parametrize(
    "words", [["--prompt=a_b"], ["--prompt", "a_b"], ["--prompt=a_b", "--top_k=3"]]
)
def test_a_prompt_keeps_its_underscores(words, tmp_path, capsys):
    model = tmp_path / "my_model.bin"
    model.write_bytes(TINY_MODEL.read_bytes())
    options = ["--tokenizer", "bytes", "--backend", "numpy", "--greedy", "--tokens", "1"]
    assert sample.main(["--model", str(model), *options, *words]) in (0, 2)
    shown = capsys.readouterr()
    # the tiny model has 251 tokens, and end-of-text, 256, is none of them
    assert "the prompt has the token 256" in shown.err
    args = sample.make_parser("p").parse_args(["--model", "m_m", *words, "--stop=--x_y"])
    assert (args.model, args.prompt, args.stop) == ("m_m", "a_b", "--x_y")


@pytest.mark.parametrize("words", [["--name", "a_b"], ["--name=a_b"]])
def test_a_name_keeps_its_underscores(words, tmp_path):
    (tmp_path / "some_text.txt").write_text("one two three\n\nfour five six\n")
    options = ["--tokenizer", "bytes", "--out", str(tmp_path / "out_here"), "--val_fraction", "0.5"]
    assert prepro_text.main([str(tmp_path / "some_text.txt"), *options, *words]) == 0
    made = sorted(path.name for path in (tmp_path / "out_here").glob("*.bin"))
    assert made == ["a_b_train.bin", "a_b_val.bin"]
    assert np.any(open_tokens(tmp_path / "out_here" / made[0]).read(0, 3))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_shows_hyphens_alone_and_each_option_is_known_with_underscores(program, capsys):
    module = import_module(PROGRAMS[program][0])
    with pytest.raises(SystemExit):
        module.main(["--help"], f"npgpt {program}")
    options = set(re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", capsys.readouterr().out))
    assert "--help" in options and not any("_" in option for option in options)
    for option in sorted(options - {"--help"}):
        spelled = "--" + option[2:].replace("-", "_")
        with pytest.raises(SystemExit):  # an option that is known lets --help come to its turn
            module.main([f"{spelled}=1", "--help"], f"npgpt {program}")
        assert "no option" not in capsys.readouterr().err, option
    with pytest.raises(SystemExit) as stopped:
        module.main(["--no_such_option"], f"npgpt {program}")
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("name", ["numba", "nothing_of_npgpts"])
def test_a_package_that_npgpt_needs_is_named_with_what_installs_it(name, capsys):
    @program
    def main(argv, prog):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    if name != "numba":  # a fault of the program's own
        with pytest.raises(ModuleNotFoundError):
            main()
        return
    assert main() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: npgpt needs the package numba: ") and "pip install -e" in said


def test_the_packages_that_npgpt_needs_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {re.match("[a-z]+", need)[0] for need in project["dependencies"]} == set(NEEDED)

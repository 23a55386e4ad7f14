"""What the programs that make token files share."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from npgpt import ArgumentError, FileError
from npgpt.data import prepare
from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import CharsTokenizer


@pytest.mark.parametrize(
    ("count", "fraction", "share"),
    [(10, 0.1, 1), (100, 0.25, 25), (2, 0.001, 1), (2, 0.999, 1), (3, 0.9, 2), (7, 0.5, 4)],
)
def test_validation_gets_its_share_and_never_none_or_all(count, fraction, share):
    assert prepare.validation_count(count, fraction) == share


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_a_fraction_that_leaves_nothing_is_refused(fraction):
    with pytest.raises(ArgumentError, match="--val-fraction must be between 0 and 1, not "):
        prepare.validation_count(10, fraction)


def test_characters_are_those_of_all_documents():
    tokenizer = prepare.build_tokenizer("chars", ["hello", "", "oh\n"])
    assert tokenizer.characters == "\nehlo"
    assert prepare.build_tokenizer("bytes", ["x"]).vocab_size == 257


def test_parts_come_with_their_tokenizer_and_are_listed(tmp_path, capsys):
    tokens = np.arange(2000) % 3
    tokenizer = CharsTokenizer("ab")
    prepare.write_splits(
        tmp_path / "new", "x.y", {"val": tokens[:5], "train": tokens}, tokenizer, "int32"
    )
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "x.y_train.bin", "x.y_train.tokenizer.json", "x.y_val.bin", "x.y_val.tokenizer.json",
    ]  # fmt: skip
    assert (tmp_path / "new" / "x.y_train.bin").stat().st_size == 8000
    assert open_tokens(tmp_path / "new" / "*").tokenizer_description == tokenizer.description
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/new/x.y_val.bin: 5 tokens",
        f"{tmp_path}/new/x.y_train.bin: 2,000 tokens",
    ]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="file: cannot be created: File exists"):
        prepare.make_folder(tmp_path / "file")
    with pytest.raises(FileError, match="below: cannot be created: Not a directory"):
        prepare.make_folder(tmp_path / "file" / "below")


def test_the_options_have_their_defaults():
    parser = argparse.ArgumentParser()
    prepare.add_text_options(parser)
    prepare.add_val_fraction(parser)
    args = parser.parse_args([])
    assert (args.tokenizer, args.format, args.val_fraction) == ("gpt2", "llmc", 0.1)
    assert args.out == Path("data")

"""The fixture that the tests of training share: two token files."""

import pytest

from npgpt.data.descriptions import write_tokenizer
from npgpt.data.token_files import write_tokens


@pytest.fixture
def tokens(tmp_path, rng):
    """Two token files of bytes, in documents of nine."""
    for name in ("train", "val"):
        path = tmp_path / f"{name}.bin"
        letters = rng.integers(97, 123, 400)
        letters[::10] = 256
        write_tokens(path, letters)
        write_tokenizer(path, {"name": "bytes"})
    return {"train": str(tmp_path / "train.bin"), "val": str(tmp_path / "val.bin")}

"""A file that is no token file is refused by what it holds, and one that is never is."""

import gzip
import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from npgpt.data.sniff import HEAD, what_it_is
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.errors import FileError
from npgpt.wording import command

TEXT = "First Citizen:\nBefore we proceed any further, hear me speak.\n" * 30
IDS = np.array([5962, 22307, 25, 198, 8421, 356, 5120, 597, 2252, 11, 3285, 502, 2740, 13] * 20)


def saved(save, *args):
    file = io.BytesIO()
    save(file, *args)
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "x")
    return file.getvalue()


def safetensors():
    header = json.dumps({"wte": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


OTHERS = {
    "text": (TEXT.encode(), f"text: {command('prepare', 'text')} makes"),
    "text in other letters": ("Æsop – 伊索, Эзоп\n".encode() * 9, "text"),
    "text cut in a character": ("伊索寓言".encode()[:-1] * 1 + b"", "text"),
    "JSON": (json.dumps({"a": [1, 2]}).encode(), "JSON"),
    "npy": (saved(np.save, IDS.astype("<u2")), "a NumPy array"),
    "npz": (saved(np.savez, IDS), "a zip archive"),
    "zip": (zipped(), "a zip archive"),
    "gzip": (gzip.compress(TEXT.encode()), "compressed by gzip"),
    "pickle of ids": (pickle.dumps(IDS), "a Python pickle"),
    "nanoGPT's meta.pkl": (pickle.dumps({"vocab_size": 65, "itos": {0: "\n"}}), "a Python pickle"),
    "old pickle": (pickle.dumps({"a": 1, "b": [2, 3]}, protocol=2), "a Python pickle"),
    "safetensors": (safetensors(), "a safetensors file"),
    "int64": (IDS.astype("<i8").tobytes(), "int64 numbers"),
    "float32": (IDS.astype("<f4").tobytes(), "float32 numbers"),
    "float64": (IDS.astype("<f8").tobytes(), "float64 numbers"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_refused_by_what_it_is(name, tmp_path):
    content, kind = OTHERS[name]
    (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(FileError) as caught:
        open_tokens(tmp_path / "train.bin")
    assert f"train.bin: not a token file but {kind}" in str(caught.value)


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_raw_tokens_are_taken_for_nothing_else(dtype, rng, tmp_path):
    kinds = [
        IDS,
        rng.integers(0, 50257, 100_000),
        rng.integers(0, 65, 100_000),  # characters
        rng.integers(0, 257, 100_000),  # bytes
        rng.integers(32, 127, 40),
        np.zeros(40, int),
        np.arange(1, 41),
    ]
    for i, ids in enumerate(kinds):
        path = tmp_path / f"{i}.bin"
        ids.astype(dtype).tofile(path)
        assert what_it_is(path.read_bytes()[:HEAD], path.stat().st_size) is None
        tokens = open_tokens(path)
        assert len(tokens) == len(ids) or (dtype == "<u2" and not ids.any())


@pytest.mark.parametrize("signature", [b"\x80\x02", b"\x80\x04", b"\xab\xcd\x00\x00"])
def test_tokens_that_begin_like_another_file_are_tokens(signature, rng, tmp_path):
    content = signature + rng.integers(0, 50257, 100).astype("<u2").tobytes()
    assert what_it_is(content, len(content)) is None


def test_a_header_of_llmc_comes_first(tmp_path):
    letters = np.frombuffer(TEXT.encode()[:1000], "<u2")  # tokens that read as text
    write_tokens(tmp_path / "t.bin", letters)
    np.testing.assert_array_equal(open_tokens(tmp_path / "t.bin")[0:500], letters)


def test_int32_cut_in_a_token_is_refused(tmp_path):
    (tmp_path / "t.bin").write_bytes(IDS.astype("<i4").tobytes()[:-2])
    with pytest.raises(FileError, match="t.bin: an int32 token file that ends in the middle"):
        open_tokens(tmp_path / "t.bin")

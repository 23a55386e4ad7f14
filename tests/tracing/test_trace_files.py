"""Traces in files: what is written is read, a tensor at a time, and damage is told."""

import json
import zipfile

import numpy as np
import pytest

from npgpt import ArgumentError, FileError
from npgpt.tracing.files import TraceFile, open_trace_writer

TENSORS = {
    "tokens": ("<i4", (2, 3)), "loss": ("<f8", ()), "qkv.0": ("<f4", (2, 3, 4)),
    "dqkvw.0": ("<f8", (4, 2)),
}  # fmt: skip
NAMES = ("t.safetensors", "t.npz", "t")


@pytest.fixture
def arrays(rng):
    return {
        name: (10 * rng.standard_normal(shape)).astype(dtype)
        for name, (dtype, shape) in TENSORS.items()
    }


def write(path, arrays):
    with open_trace_writer(path, TENSORS) as out:
        for name in TENSORS:
            out(name, np.asarray(arrays[name]))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(name, arrays, tmp_path):
    trace = TraceFile(write(tmp_path / name, arrays))
    assert trace.shapes == {each: shape for each, (_, shape) in TENSORS.items()}
    for each, (dtype, _) in TENSORS.items():
        array = trace.read(each)
        assert array.dtype == dtype == trace.dtype(each)
        np.testing.assert_array_equal(array, arrays[each])
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES[:2])
def test_equal_traces_are_equal_files(name, arrays, tmp_path):
    first = write(tmp_path / name, arrays).read_bytes()
    assert write(tmp_path / name, arrays).read_bytes() == first


@pytest.mark.parametrize("name", NAMES)
def test_nothing_half_written_is_left(name, arrays, tmp_path):
    with pytest.raises(ZeroDivisionError), open_trace_writer(tmp_path / name, TENSORS) as out:
        out("tokens", arrays["tokens"])
        1 / 0  # noqa: B018
    assert [*tmp_path.iterdir()] == []
    for wrong in ({"loss": 1.0}, {"tokens": np.zeros((3, 2))}):
        with pytest.raises(AssertionError), open_trace_writer(tmp_path / name, TENSORS) as out:
            for each, array in wrong.items():
                out(each, np.asarray(array))


def test_numpy_and_safetensors_read_them_too(arrays, tmp_path):
    with np.load(write(tmp_path / "t.npz", arrays)) as archive:
        np.testing.assert_array_equal(archive["qkv.0"], arrays["qkv.0"])
    numpy = pytest.importorskip("safetensors.numpy")
    loaded = numpy.load_file(write(tmp_path / "t.safetensors", arrays))
    assert {*loaded} == {*TENSORS}
    np.testing.assert_array_equal(loaded["dqkvw.0"], arrays["dqkvw.0"])


def test_half_precision_and_files_of_others(rng, tmp_path):
    x = rng.standard_normal((2, 4)).astype("<f4")
    upper = (x.view("<u4") >> 16).astype("<u2")
    header = json.dumps(
        {
            "__metadata__": {"a": "b"},
            "x": {"dtype": "BF16", "shape": [2, 4], "data_offsets": [0, 16]},
        }
    ).encode()
    content = len(header).to_bytes(8, "little") + header + upper.tobytes()
    (tmp_path / "t.safetensors").write_bytes(content)
    trace = TraceFile(tmp_path / "t.safetensors")
    assert trace.dtype("x") == "bf16"
    np.testing.assert_allclose(trace.read("x"), x, rtol=2.0**-7)
    np.savez(tmp_path / "t.npz", x=x.astype("<f2"))
    assert TraceFile(tmp_path / "t.npz").dtype("x") == "<f2"
    raw = tmp_path / "raw"
    raw.mkdir()
    x.tofile(raw / "ln1.0.f4")  # without a manifest, names are those of the files
    assert TraceFile(raw).shapes == {"ln1.0": (8,)}


def test_a_folder_is_not_replaced_and_a_suffix_must_be_known(arrays, tmp_path):
    write(tmp_path / "t", arrays)
    with pytest.raises(FileError, match="already exists; remove it"):
        write(tmp_path / "t", arrays)
    with pytest.raises(ArgumentError, match=r"t.pt: must end in .safetensors or .npz"):
        write(tmp_path / "t.pt", arrays)


def damaged_header(path, **changed):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}
    header = json.dumps({"x": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": [3]}, {"shape": [-2]}, {"shape": [2.0]}, {"shape": "2"}, {"dtype": "F31"},
        {"data_offsets": [8, 16]}, {"data_offsets": [-8, 0]}, {"data_offsets": [0]},
        {"dtype": ["F32"]}, {"shape": [1 << 60]},
    ],
)  # fmt: skip
def test_a_damaged_safetensors_file(changed, tmp_path):
    path = tmp_path / "t.safetensors"
    damaged_header(path)
    assert TraceFile(path).read("x").tolist() == [0, 0]
    damaged_header(path, **changed)
    with pytest.raises(FileError, match="header of the safetensors file is damaged"):
        TraceFile(path)


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 20, (2).to_bytes(8, "little") + b"[]"])
def test_what_is_no_safetensors_file(content, tmp_path):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(FileError, match="safetensors"):
        TraceFile(tmp_path / "t")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("x f4", "line 1 must be"), ("x f3 x.f4 2", "line 1 must be"),
        ("x f4 ../x.f4 2", "line 1 must be"), ("x f4 x.f4 two", "line 1 must be"),
        ("x f4 x.f4 " + "1" * 5000, "line 1 must be"),
        ("x f4 x.f4 3", "8 bytes, but"), ("x f4 y.f4 2", "No such file"),
    ],
)  # fmt: skip
def test_a_damaged_manifest(line, words, tmp_path):
    (tmp_path / "x.f4").write_bytes(bytes(8))
    (tmp_path / "manifest.txt").write_text("x f4 x.f4 2\n")
    assert TraceFile(tmp_path).read("x").shape == (2,)
    (tmp_path / "manifest.txt").write_text(line + "\n")
    with pytest.raises(FileError, match=words):
        TraceFile(tmp_path)


def test_damaged_npz_files_and_empty_folders(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FileError, match="not an .npz file"):
        TraceFile(tmp_path / "t.npz")
    with zipfile.ZipFile(tmp_path / "u.npz", "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(FileError, match="x.npy is not an array"):
        TraceFile(tmp_path / "u.npz")
    np.savez(tmp_path / "v.npz", x=np.array(["pickled", None], dtype=object))
    with pytest.raises(FileError, match="x.npy is not an array"):
        TraceFile(tmp_path / "v.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="no manifest.txt, and no files that end in"):
        TraceFile(tmp_path / "empty")

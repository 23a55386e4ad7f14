"""Opening and writing files: one sentence for a failure, and never half a file."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from npgpt import FileError
from npgpt.data.token_files import open_tokens
from npgpt.files import (
    atomic_write,
    check_path,
    open_for_reading,
    partial_folder,
    read_json,
    read_text,
)
from npgpt.formats.models import load_model


def read(path):
    with open_for_reading(path) as (file, size):
        return file.read(), size


def test_a_file_is_opened_with_its_size(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert read(tmp_path / "f") == (b"abc", 3)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileError, match="nothing: No such file or directory"):
        read(tmp_path / "nothing")
    with pytest.raises(FileError, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="is not a regular file"):
        read(tmp_path / "pipe")


def test_a_file_without_permission_is_refused():
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read anything: be nobody for a moment
        try:
            with pytest.raises(FileError, match="Permission denied"):
                read(file.name)
        finally:
            os.seteuid(user)


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "f"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_keeps_its_mode(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with atomic_write(path) as file:
        file.write(b"new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "link").symlink_to("f")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "f").read_bytes() == b"new"


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(FileError, match="is a folder"), atomic_write(tmp_path) as file:
        file.write(b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="is not a regular file"):
        with atomic_write(tmp_path / "pipe") as file:
            file.write(b"")
    with pytest.raises(FileError, match="none/f: cannot be written: No such file or directory"):
        with atomic_write(tmp_path / "none" / "f") as file:
            file.write(b"")
    with pytest.raises(FileError, match="cannot be written"):
        with atomic_write(tmp_path / ("f" * 300)) as file:
            file.write(b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "builtins.open", lambda path, mode: os.fdopen(os.open("/dev/full", 1), "wb")
    )
    with pytest.raises(FileError, match="No space left on device"):
        with atomic_write(tmp_path / "f") as file:
            file.write(b"x" * 100_000)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b", "\0", "\ud800.bin"])
def test_a_path_that_no_file_can_have_is_one_sentence(tmp_path, name):
    for opened in (open_for_reading, atomic_write):
        with pytest.raises(FileError, match="not a path that a file can have") as caught:
            with opened(os.path.join(tmp_path, name)):
                pass
        str(caught.value).encode()  # can be printed
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 200_000, "not JSON"),
        (b'{"a": 1' + 5000 * b"0" + b"}", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "must hold a JSON object"),
        (b'{"a": "' + 100 * b"x" + b'"}', "109 bytes, but 100 are the most"),
    ],
)
def test_json_is_read_within_its_limits(tmp_path, content, words):
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"some.json: {words}"):
        read_json(path, 100 if b"x" in content else 1 << 24)
    path.write_text('{"a": [1]}')
    assert read_json(path) == {"a": [1]}


def test_companions_are_written_replaced_and_removed_with_their_file(tmp_path):
    path, beside = tmp_path / "f", tmp_path / "f.json"
    for content, companion in ((b"1", b"a"), (b"2", b"b"), (b"3", b"b"), (b"4", None)):
        with atomic_write(path, {beside: companion}) as file:
            file.write(content)
        assert path.read_bytes() == content
        assert (beside.read_bytes() if beside.exists() else None) == companion
    assert os.listdir(tmp_path) == ["f"]


def test_between_the_renames_there_is_no_file_under_the_name(tmp_path, monkeypatch):
    path, beside = tmp_path / "f", tmp_path / "f.json"
    path.write_bytes(b"old"), beside.write_bytes(b"old")
    rename, seen = os.rename, []

    def watched(source, target):
        seen.append((path.exists(), beside.exists() and beside.read_bytes()))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    with atomic_write(path, {beside: b"new"}) as file:
        file.write(b"new")
    assert seen == [(True, b"old"), (False, b"old"), (False, False), (False, b"new")]
    assert (path.read_bytes(), beside.read_bytes()) == (b"new", b"new")


@pytest.mark.parametrize("failing", range(4))
def test_a_rename_that_fails_leaves_all_as_they_were(failing, tmp_path, monkeypatch):
    path, beside = tmp_path / "f", tmp_path / "f.json"
    path.write_bytes(b"old"), beside.write_bytes(b"old")
    rename, calls = os.rename, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    with (
        pytest.raises(FileError, match="f: cannot be written: No space left on device"),
        atomic_write(path, {beside: b"new"}) as file,
    ):
        file.write(b"new")
    assert (path.read_bytes(), beside.read_bytes()) == (b"old", b"old")
    assert sorted(os.listdir(tmp_path)) == ["f", "f.json"]


def test_partial_files_of_killed_processes_are_swept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    for name in (f"f.{process.pid}", f"f.{process.pid}.old", f"f.{os.getppid()}", "other.1"):
        (tmp_path / f"{name}.partial").write_bytes(b"")
    with atomic_write(tmp_path / "f") as file:
        file.write(b"new")
    left = {"f", f"f.{os.getppid()}.partial", "other.1.partial"}
    assert set(os.listdir(tmp_path)) == left


def test_a_partial_folder_is_removed_with_what_is_in_it(tmp_path):
    with partial_folder(tmp_path / "f") as folder:
        (folder / "inside").write_bytes(b"1")
        assert folder.name.startswith(f"f.{os.getpid()}.") and folder.suffix == ".partial"
    assert os.listdir(tmp_path) == []


def test_a_kill_and_then_a_failure_keep_the_old_file(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    kept = tmp_path / f"f.{process.pid}.0.old.partial"  # as a kill between two renames leaves it
    kept.write_bytes(b"old")
    with (
        pytest.raises(RuntimeError),
        atomic_write(tmp_path / "f", {tmp_path / "g": b"new"}) as file,
    ):
        file.write(b"half")
        raise RuntimeError
    assert kept.read_bytes() == b"old" and os.listdir(tmp_path) == [kept.name]
    with atomic_write(tmp_path / "f", {tmp_path / "g": b"new"}) as file:
        file.write(b"new")
    assert sorted(os.listdir(tmp_path)) == ["f", "g"]


def test_several_writers_leave_what_belongs_together(tmp_path):
    """Threads and processes that write one file with its companion, again and again."""
    code = """
import sys, threading
from npgpt.files import atomic_write
def write(name):
    for i in range(15):
        content = f"{name} {i}".encode()
        with atomic_write(sys.argv[1] + "/f", {sys.argv[1] + "/g": content}) as file:
            file.write(content)
threads = [threading.Thread(target=write, args=[f"{sys.argv[2]} {n}"]) for n in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE) for i in range(2)]
    seen = 0
    while any(process.poll() is None for process in processes):
        try:
            before = (tmp_path / "g").read_bytes()
            content = (tmp_path / "f").read_bytes()
            seen += before == (tmp_path / "g").read_bytes() == content
            assert before in (content, b"") or before != (tmp_path / "g").read_bytes()
        except FileNotFoundError:
            continue  # it is being replaced
    assert [process.communicate()[1] for process in processes] == [b"", b""]
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["f", "g"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("https://a.b/c.txt?d=*", "https://a.b/c.txt?d=*"),
        (Path("https://a.b/c.txt"), "https://a.b/c.txt"),
        ("HTTP://a.b", "HTTP://a.b"),
    ],
)
def test_a_url_is_no_path(path, shown):
    for reads in (read_text, read_json, open_tokens, load_model):
        with pytest.raises(FileError) as caught:
            reads(path)
        said = f"{shown}: is a URL, not a file: download it first, and name the file"
        assert str(caught.value) == said
    for name in ("https", "https_a/b", "a/https://b"):
        check_path(name)

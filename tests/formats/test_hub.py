"""Downloads from a server that breaks off, lies and refuses: the right bytes, or one sentence."""

import hashlib
import http.server
import os
import socket
import struct
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from npgpt import ArgumentError, FileError, GPT2Config, download
from npgpt.core.config import PUBLISHED
from npgpt.core.parameters import Parameters, count_parameters
from npgpt.download import main
from npgpt.formats import hub
from npgpt.formats.hub import FILES, MODELS, fetch
from npgpt.formats.huggingface import read_config, read_huggingface, write_huggingface

CONTENT = bytes(i * i % 251 for i in range(300_000))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
Request = namedtuple("Request", "method path range")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the content, but first, a request each, the faults of the list `faults`."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        state = self.server
        state.requests.append(Request(self.command, self.path, self.headers["Range"]))
        fault, *details = state.faults.pop(0) if state.faults else ("none",)
        if fault == "status":
            self.send_error(details[0])
        elif fault == "redirect":
            self.answer(302, b"", {"Location": details[0], **state.linked})
        elif fault == "length":
            self.answer(200, state.content, {"Content-Length": details[0]})
        elif fault == "no length":
            self.answer(200, state.content, {"Content-Length": None})
        elif fault == "range":
            self.answer(206, state.content, {"Content-Range": details[0]})
        elif self.command == "HEAD":
            self.answer(200, b"", state.linked)
        else:
            start = 0
            if self.headers["Range"] and fault != "no ranges":
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            piece, size = state.content[start:], len(state.content)
            headers = {"Content-Length": len(piece)}
            if self.headers["Range"] and fault != "no ranges":
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            status = 206 if "Content-Range" in headers else 200
            self.answer(status, piece[: details[0]] if details else piece, headers)
            if fault == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                os.close(self.connection.detach())

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on loopback as the mirror, for two files of known sha256 and a model of unknown."""
    known = [("/a/known.bin", SIZE, SHA256), ("/a/second.bin", SIZE, SHA256)]
    unknown = [("/b/model.safetensors", None, None)]
    files = {"reference": known, "hellaswag": known[:1], "gpt2-medium": unknown}
    for module in (hub, download):
        monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(hub, "PAUSES", (0, 0, 0, 0))
    monkeypatch.setenv("NPGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("NPGPT_OFFLINE", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        server.content, server.faults, server.requests = CONTENT, [], []
        server.linked = {"X-Linked-Size": SIZE, "X-Linked-Etag": f'"{SHA256}"'}
        server.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("NPGPT_MIRROR", server.url + "/")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def refused(*args, **options):
    """The one sentence with which fetch refuses."""
    with pytest.raises((FileError, ArgumentError)) as raised:
        fetch(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def files(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def test_files_are_downloaded_once_into_the_cache(server, tmp_path, capfd):
    folder = fetch("reference")
    assert folder == tmp_path / "cache" / "reference"
    assert files(folder) == ["known.bin", "second.bin"]
    assert (folder / "second.bin").read_bytes() == CONTENT
    assert [r.path for r in server.requests] == ["/a/known.bin", "/a/second.bin"]
    assert fetch("reference") == folder and len(server.requests) == 2
    assert capfd.readouterr().err == ""  # no bar where there is no terminal


def test_the_program_says_what_is_where(server, tmp_path, capsys):
    target = tmp_path / "new" / "folder" / "known.bin"
    for args in ([], ["--offline"]):
        assert main(["hellaswag", "--dir", str(target.parent), *args]) == 0
        assert capsys.readouterr().out == f"{target}: 300 kB, its sha256 is right\n"
    assert target.read_bytes() == CONTENT
    assert fetch("hellaswag", target.parent) == target
    assert main(["hellaswag", "--offline", "--dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'known.bin'}: not found, and offline mode forbids downloading it\n"
    )


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_connection_that_breaks_off_goes_on_from_there(fault, server):
    server.faults = [(fault, 100_000), (fault, 50_000)]
    assert fetch("hellaswag").read_bytes() == CONTENT
    first, second, third = (request.range for request in server.requests)
    assert first is None
    if fault == "cut":  # of what is sent before a reset, some may be lost
        assert (second, third) == ("bytes=100000-", "bytes=150000-")


def test_a_connection_that_breaks_off_each_time_is_kept_for_the_next_download(server):
    server.faults = [("cut", 1000)] * 4
    message = refused("hellaswag")
    assert "the connection closed at byte 4000 of 300000 (4 attempts; the partial" in message
    assert len(server.requests) == 4
    target = fetch("hellaswag")
    assert server.requests[-1].range == "bytes=4000-"
    assert target.read_bytes() == CONTENT and files(target.parent) == ["known.bin"]


def test_a_server_without_ranges_starts_anew(server):
    server.faults = [("cut", 100_000), ("no ranges", 50_000), ("no ranges",)]
    assert fetch("hellaswag").read_bytes() == CONTENT
    assert [r.range for r in server.requests] == [None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize("range", ["bytes 7-299999/300000", "bytes */300000", "x", ""])
def test_another_range_than_asked_for_is_not_taken(range, server):
    server.faults = [("cut", 100_000), ("range", range)]
    assert fetch("hellaswag").read_bytes() == CONTENT
    assert [r.range for r in server.requests] == [None, "bytes=100000-", None]


def test_a_file_of_another_size_is_refused_at_once(server, tmp_path):
    server.faults = [("length", SIZE - 1)]
    assert f"the server's file is {SIZE - 1} bytes long, not {SIZE}" in refused("hellaswag")
    server.faults = [("cut", 10), ("range", f"bytes 10-{SIZE}/{SIZE + 1}")]
    assert f"the server's file is {SIZE + 1} bytes long, not {SIZE}" in refused("hellaswag")
    assert len(server.requests) == 3
    assert files(tmp_path) == ["known.bin.partial"]


def test_a_server_that_does_not_tell_the_length_is_read(server):
    server.faults = [("no length",)]
    assert fetch("hellaswag").read_bytes() == CONTENT


def test_wrong_bytes_are_not_kept(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    assert f"wrong sha256, discarded ({sha256(server)}" in refused("hellaswag")
    assert files(tmp_path) == []
    (tmp_path / "cache" / "hellaswag" / "known.bin.partial").write_bytes(b"another start")
    server.content = CONTENT
    assert "wrong sha256, discarded" in refused("hellaswag")
    assert fetch("hellaswag").read_bytes() == CONTENT


def sha256(server):
    return hashlib.sha256(server.content).hexdigest()


@pytest.mark.parametrize("left", [SIZE, SIZE + 1])
def test_a_partial_file_that_is_complete_or_too_long(left, server, tmp_path):
    (tmp_path / "known.bin.partial").write_bytes((CONTENT + b"x")[:left])
    assert fetch("hellaswag", tmp_path).read_bytes() == CONTENT
    assert [r.range for r in server.requests] == ([] if left == SIZE else [None])


def test_a_refusal_is_one_sentence_without_another_attempt(server, tmp_path):
    for status, words in ((404, "Not Found"), (403, "Forbidden"), (416, "Requested Range")):
        server.faults = [("status", status)]
        assert f"the server answered {status} {words}" in refused("hellaswag")
    assert len(server.requests) == 3
    assert "known.bin" not in files(tmp_path)


def test_a_server_in_trouble_is_asked_again(server):
    server.faults = [("status", 500), ("status", 429), ("status", 503)]
    assert fetch("hellaswag").read_bytes() == CONTENT
    server.faults = [("status", 503)] * 4
    assert "the server answered 503 Service Unavailable (4 att" in refused("reference")


def test_a_redirect_is_followed_with_its_range(server):
    server.faults = [("cut", 1000), ("redirect", server.url + "/elsewhere")]
    assert fetch("hellaswag").read_bytes() == CONTENT
    assert server.requests[2] == ("GET", "/elsewhere", "bytes=1000-")


@pytest.mark.parametrize("scheme", ["file", "ftp", "data"])
def test_a_redirect_to_another_scheme_is_refused(scheme, server, tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    server.faults = [("redirect", f"{scheme}://127.0.0.1{tmp_path}/secret")] * 4
    message = refused("hellaswag")
    assert "not allowed" in message or f"unknown url type: {scheme}" in message
    assert files(tmp_path / "cache") == ["known.bin.partial"]


def test_a_redirect_in_a_circle_is_refused(server):
    server.faults = [("redirect", server.url + "/a")] * 100
    assert "the server answered 302" in refused("hellaswag")


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("http://127.0.0.1:9", "known.bin: cannot be downloaded: [Errno"),  # nobody listens there
        ("file:///tmp", "NPGPT_MIRROR must begin with https:// or http://, not be file:///tmp"),
        ("http://[", "known.bin: not a valid URL: "),
        ("http://", "cannot be downloaded: no host given"),
        ("http://127.0.0.1:port", "nonnumeric port"),
    ],
)
def test_a_mirror_that_is_none_is_one_sentence(mirror, message, server, monkeypatch):
    monkeypatch.setenv("NPGPT_MIRROR", mirror)
    assert message in refused("hellaswag")


def test_offline_mode_asks_no_server(server, monkeypatch, tmp_path):
    monkeypatch.setenv("NPGPT_OFFLINE", "1")
    assert "known.bin: not found, and offline mode forbids" in refused("hellaswag")
    assert "not found, and offline mode forbids" in refused("gpt2-medium")
    assert not (tmp_path / "cache").exists() and server.requests == []
    target = fetch("hellaswag", offline=False)
    assert len(server.requests) == 1
    assert fetch("hellaswag") == target and len(server.requests) == 1
    monkeypatch.setenv("NPGPT_OFFLINE", "0")
    fetch("reference")
    assert len(server.requests) == 3


def test_another_file_of_that_name_is_refused_and_left(server, tmp_path):
    for content in (CONTENT[:-1], b"my own", b"x" * SIZE):
        (tmp_path / "known.bin").write_bytes(content)
        assert "known.bin: exists, but is not the published file" in refused("hellaswag", tmp_path)
        assert (tmp_path / "known.bin").read_bytes() == content
    assert server.requests == []


def test_a_file_of_unknown_sha256_is_what_the_server_tells(server, tmp_path):
    server.faults = [("redirect", server.url + "/elsewhere")]
    folder = fetch("gpt2-medium")
    assert [r.method for r in server.requests] == ["HEAD", "GET"]
    assert files(folder) == ["config.json", "model.safetensors", "model.safetensors.sha256"]
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    record = (folder / "model.safetensors.sha256").read_text()
    assert record == f"{SHA256}  model.safetensors\n"
    assert read_config(folder / "config.json") == PUBLISHED["355M"]
    assert fetch("gpt2-medium") == folder and len(server.requests) == 2
    (folder / "model.safetensors").write_bytes(CONTENT[:-1])
    assert "exists, but is not the published file" in refused("gpt2-medium")
    (folder / "model.safetensors.sha256").unlink()
    assert "expected one recorded beside it): move it away" in refused("gpt2-medium")


def test_wrong_bytes_of_unknown_sha256_are_not_kept(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    assert "wrong sha256, discarded" in refused("gpt2-medium")
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "linked",
    [
        {},
        {"X-Linked-Size": SIZE},
        {"X-Linked-Etag": f'"{SHA256}"'},
        {"X-Linked-Size": SIZE, "X-Linked-Etag": '"0123abc"'},
        {"X-Linked-Size": -1, "X-Linked-Etag": f'"{SHA256}"'},
    ],
)
def test_a_server_that_tells_no_sha256_is_refused(linked, server, tmp_path):
    server.linked = linked
    assert "the server does not send the file's size and sha256" in refused("gpt2-medium")
    assert files(tmp_path) == [] and [r.method for r in server.requests] == ["HEAD"]


def test_a_server_that_cannot_be_asked_for_a_sha256_is_one_sentence(server, monkeypatch):
    server.faults = [("status", 404)]
    assert "the server answered 404 Not Found" in refused("gpt2-medium")
    monkeypatch.setenv("NPGPT_MIRROR", "http://127.0.0.1:9")
    assert "cannot be downloaded: [Errno" in refused("gpt2-medium")


def test_a_config_that_is_there_is_left(server, tmp_path):
    (tmp_path / "config.json").write_text("mine")
    fetch("gpt2-medium", tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_a_disk_without_room_is_one_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda folder: Usage(SIZE - 1001))
    assert "needs 300 kB, but only 299 kB is free" in refused("hellaswag", tmp_path)
    assert server.requests == []
    (tmp_path / "known.bin.partial").write_bytes(CONTENT[:1001])  # what is there needs no room
    assert fetch("hellaswag", tmp_path).read_bytes() == CONTENT


Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize("way", ["folder", "partial"])
def test_what_is_in_the_way_is_one_sentence(way, server, tmp_path):
    if way == "folder":
        (tmp_path / "out").write_bytes(b"a file")
    else:
        (tmp_path / "out" / "known.bin.partial").mkdir(parents=True)
    assert "known.bin: cannot be written: " in refused("hellaswag", tmp_path / "out")


def test_a_folder_that_may_not_be_written_is_one_sentence(server, tmp_path):
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere: be nobody for a moment
    try:
        assert "known.bin: cannot be written: Permission denied" in refused("hellaswag", tmp_path)
    finally:
        os.seteuid(user)


def test_an_unknown_name_is_one_sentence(capsys):
    assert "name must be one of gpt2, " in refused("gpt3")
    with pytest.raises(SystemExit) as end:
        main(["gpt3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: NAME: must be one of gpt2, gpt2-medium, ")


def test_a_downloaded_model_is_read(server, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    config = GPT2Config(4, 50257, 1, 1, 2)
    params = Parameters.init(config)
    write_huggingface(tmp_path / "model", params)
    server.content = (tmp_path / "model" / "model.safetensors").read_bytes()
    server.linked = {"X-Linked-Size": len(server.content), "X-Linked-Etag": f'"{sha256(server)}"'}
    monkeypatch.setattr(hub, "PUBLISHED", {"355M": config})
    assert (read_huggingface(fetch("gpt2-medium")).flat == params.flat).all()


def test_the_table_agrees_with_the_sizes():
    assert set(MODELS.values()) == set(PUBLISHED) and set(MODELS) < set(FILES)
    for name, entries in FILES.items():
        for path, size, sha256 in entries:
            assert (size is None) == (sha256 is None) == (name in list(MODELS)[1:])
            assert path.startswith("/") and path.endswith((".bin", ".safetensors"))
    masks = 12 * 1024 * 1024  # float32 in the Hub's file, besides the parameters and a header
    weights = 4 * (count_parameters(PUBLISHED["124M"]) + masks)
    assert 0 < FILES["gpt2"][0][1] - weights < 20_000

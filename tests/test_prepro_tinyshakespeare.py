"""tinyshakespeare's token files: the published streams, the download, and bad input."""

import hashlib
import http.server
import json
import os
import threading

import numpy as np
import pooch
import pytest
from helpers import highest

from npgpt import prepro_tinyshakespeare
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import BytesTokenizer
from npgpt.prepro_tinyshakespeare import main, tokenize

# of the tokens as int32, from llm.c's own preprocessing
VALIDATION_SHA256 = "5dcd79e2f05f2f6cbc3a440565105367c12f148c4e01a3283a4307921f5f9945"
TRAINING_SHA256 = "fe4dddf0265c5cf586e0684534932890dab01a74c358b8378f1a3d41cbdba429"


@pytest.fixture
def text(tmp_path):
    """A text of a little more than 32,768 bytes, and blank lines."""
    path = tmp_path / "text.txt"
    path.write_text("To be, or not to be\n\n" * 1600)
    return path


def test_the_real_text_gives_the_published_tokens(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    args = ["--text", str(shared_data / "tinyshakespeare.txt"), "--out", str(tmp_path)]
    assert main([*args, "--format", "int32"]) == 0
    assert "32,768 tokens" in capsys.readouterr().out
    streams = {}
    for name, count, sha256 in (
        ("val", 32768, VALIDATION_SHA256),
        ("train", 305260, TRAINING_SHA256),
    ):
        content = (tmp_path / f"tiny_shakespeare_{name}.bin").read_bytes()
        assert len(content) == 4 * count
        assert hashlib.sha256(content).hexdigest() == sha256
        streams[name] = np.frombuffer(content, "<i4")
    assert main(args) == 0
    for name, stream in streams.items():
        content = (tmp_path / f"tiny_shakespeare_{name}.bin").read_bytes()
        np.testing.assert_array_equal(np.frombuffer(content[1024:], "<u2"), stream)


def test_the_real_text_as_characters(shared_data, tmp_path):
    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    path = shared_data / "tinyshakespeare.txt"
    assert main(["--text", str(path), "--out", str(tmp_path), "--tokenizer", "chars"]) == 0
    names = [str(tmp_path / f"tiny_shakespeare_{part}.bin") for part in ("val", "train")]
    tokens = open_tokens(names)
    tokenizer = tokenizer_from_description(tokens.tokenizer_description)
    assert (tokenizer.vocab_size, tokenizer.eot, highest(tokens)) == (66, 65, 65)
    stream = tokens.read(0, len(tokens))
    characters = stream[stream != tokenizer.eot]
    assert len(characters) == len(text) == 1_115_394
    assert tokenizer.decode(characters) == text
    assert len(open_tokens(names[0])) == 32768


@pytest.mark.parametrize(
    "text", ["", "a", "a\n\nb", "a\n\n", "\n\na", "a\n\n\nb", "a\n\n\n\nb", "a\nb\n"]
)
def test_end_of_text_stands_in_front_and_after_each_blank_line(text):
    marked = "|" + text.replace("\n\n", "\n\n|")
    expected = [256 if byte == ord("|") else byte for byte in marked.encode()]
    assert tokenize(text, BytesTokenizer()).tolist() == expected


def test_bytes_need_no_download(text, tmp_path):
    out = tmp_path / "new" / "folder"
    args = ["--text", str(text), "--tokenizer", "bytes", "--format", "int32", "--out", str(out)]
    assert main(args) == 0
    joined = b"".join(
        (out / f"tiny_shakespeare_{name}.bin").read_bytes() for name in ("val", "train")
    )
    expected = tokenize(text.read_text(), BytesTokenizer())
    np.testing.assert_array_equal(np.frombuffer(joined, "<i4"), expected)
    assert (out / "tiny_shakespeare_val.bin").stat().st_size == 4 * 32768
    for part in ("val", "train"):
        description = json.loads((out / f"tiny_shakespeare_{part}.tokenizer.json").read_text())
        assert description == {"name": "bytes"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "text.txt: No such file or directory"),
        (b"short", "text.txt: has 6 tokens, but validation takes 32,768 and training the rest"),
        (b"", "text.txt: has 1 token, but validation takes 32,768"),
        (b"abc\xff", "text.txt: not UTF-8 text (byte 3)"),
    ],
)
def test_a_bad_text_is_one_sentence(content, message, tmp_path, capsys):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    args = ["--text", str(path), "--tokenizer", "bytes", "--out", str(tmp_path / "out")]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(text, capsys):
    args = ["--text", str(text), "--tokenizer", "bytes", "--out", str(text)]
    assert main(args) == 2
    assert capsys.readouterr().err == f"error: {text}: cannot be created: File exists\n"


class Server(http.server.BaseHTTPRequestHandler):
    content = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on loopback instead of the real one; pooch's cache is in tmp_path."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    for name in ("NPGPT_CACHE", "NPGPT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/input.txt"
        monkeypatch.setattr(prepro_tinyshakespeare, "URL", url)
        yield
        server.shutdown()


def test_the_download_is_checked_and_kept(server, text, monkeypatch, capsys):
    content = text.read_bytes()
    monkeypatch.setattr(Server, "content", content)
    monkeypatch.setattr(prepro_tinyshakespeare, "SHA256", hashlib.sha256(content).hexdigest())
    path = prepro_tinyshakespeare.download()
    assert path.read_bytes() == content
    assert capsys.readouterr().err.startswith("downloading http://127.0.0.1")
    monkeypatch.setattr(Server, "content", b"gone")
    assert prepro_tinyshakespeare.download().read_bytes() == content
    assert capsys.readouterr().err == ""


def test_the_cache_s_folder_can_be_named(server, text, monkeypatch, tmp_path):
    content = text.read_bytes()
    monkeypatch.setattr(Server, "content", content)
    monkeypatch.setattr(prepro_tinyshakespeare, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("NPGPT_CACHE", str(tmp_path / "elsewhere"))
    path = prepro_tinyshakespeare.download()
    assert path == tmp_path / "elsewhere" / "tinyshakespeare.txt"
    assert path.read_bytes() == content and not (tmp_path / "cache").exists()


def test_offline_mode_takes_what_is_in_the_cache_and_asks_no_server(
    server, text, monkeypatch, tmp_path, capsys
):
    content = text.read_bytes()
    monkeypatch.setattr(Server, "content", content)
    monkeypatch.setattr(prepro_tinyshakespeare, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("NPGPT_OFFLINE", "1")
    arguments = ["--tokenizer", "bytes", "--out", str(tmp_path / "out")]
    where = f"error: {tmp_path / 'cache' / 'npgpt' / 'tinyshakespeare.txt'}: "
    for problem in ("not found", "is not the published file"):
        assert main(arguments) == 2
        assert capsys.readouterr().err == (
            f"{where}{problem}, and offline mode forbids downloading tinyshakespeare:"
            " download it yourself and pass it with --text FILE\n"
        )
        path = tmp_path / "cache" / "npgpt" / "tinyshakespeare.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"wrong")
    path.write_bytes(content)
    assert prepro_tinyshakespeare.download() == path
    monkeypatch.setattr(prepro_tinyshakespeare, "SHA256", None)
    path.write_bytes(b"any")
    assert prepro_tinyshakespeare.download() == path
    monkeypatch.setenv("NPGPT_OFFLINE", "0")
    path.unlink()
    assert prepro_tinyshakespeare.download().read_bytes() == content


def test_a_download_of_wrong_bytes_is_one_sentence_and_not_kept(
    server, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(Server, "content", b"wrong")
    assert main(["--tokenizer", "bytes", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "tinyshakespeare cannot be downloaded" in error and "--text FILE" in error
    assert [f for _, _, files in os.walk(tmp_path / "cache") for f in files] == []


def test_a_download_without_a_server_is_one_sentence(server, monkeypatch, tmp_path, capsys):
    dead = "http://127.0.0.1:9/input.txt"  # nobody listens there
    monkeypatch.setattr(prepro_tinyshakespeare, "URL", dead)
    assert main(["--tokenizer", "bytes", "--out", str(tmp_path / "out")]) == 2
    assert "error: tinyshakespeare cannot be downloaded" in capsys.readouterr().err

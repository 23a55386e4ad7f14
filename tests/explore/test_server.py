"""The server: whom it answers, what it refuses, and that it answers while it computes."""

import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import TINY_MODEL

from npgpt.__main__ import main
from npgpt.errors import ArgumentError
from npgpt.explore.server import LARGEST_REQUEST, libraries, listen, page_files
from npgpt.explore.session import Session
from npgpt.explore.wire import unpacked
from npgpt.explore.worker import Worker

pytest.importorskip("starlette", reason="needs the extra `explore`")
pytest.importorskip("uvicorn", reason="needs the extra `explore`")

from serving import served  # noqa: E402

TEXT = "she sells sea shells"


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


def test_it_listens_on_the_loopback_alone():
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ArgumentError, match=f"--port {port} cannot be used"):
            listen(port)
    for port in (-1, 65536):
        with pytest.raises(ArgumentError, match="must be from 0 to 65535"):
            listen(port)


def test_the_page_and_its_files(server):
    status, headers, text = server.request("GET", "/")
    assert status == 200 and text.startswith("<!doctype html>")
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    for name, content in page_files().items():
        status, headers, text = server.request("GET", f"/{name}")
        assert (status, text.encode()) == (200, content)
        assert headers["x-content-type-options"] == "nosniff"
    assert len(page_files()) > 8


@pytest.mark.parametrize("path", ["/nothing.js", "/../session.py", "/%2e%2e/session.py", "/a/b"])
def test_there_are_no_other_files(server, path):
    assert server.request("GET", path)[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.com"}, {"Host": "127.0.0.1"}, {"Host": "127.0.0.1.example.com:80"},
        {"Origin": "http://example.com"}, {"Origin": "null"}, {"Origin": "https://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_strangers_are_refused(server, headers):
    for method, path in (("GET", "/"), ("POST", "/api/status"), ("POST", "/api/describe")):
        body = "{}" if method == "POST" else None
        kind = {"Content-Type": "application/json"}
        status, _, text = server.request(method, path, body, {**kind, **headers})
        assert status == 403, path
        assert "error" in json.loads(text)


def test_its_own_page_is_answered(server):
    for host in ("127.0.0.1", "localhost"):
        own = f"{host}:{server.port}"
        headers = {"Host": own, "Origin": f"http://{own}", "Content-Type": "application/json"}
        headers["Sec-Fetch-Site"] = "same-origin"
        assert server.request("POST", "/api/describe", "{}", headers)[0] == 200


def test_answers_are_the_sessions(server):
    session = Session.named("tiny")
    status, shown = server.ask("picture", text=TEXT)
    assert status == 200
    np.testing.assert_array_equal(unpacked(shown["att"]), session.picture(TEXT)["att"])
    _, shown = server.ask("position", text=TEXT, position=4)
    np.testing.assert_array_equal(unpacked(shown["logits"]), session.position(TEXT, 4)["logits"])
    _, shown = server.ask("explain", text=TEXT, name="dfcb.1", index=[3])
    assert shown["stored"] == pytest.approx(session.explain(TEXT, "dfcb.1", [3])["stored"])


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("picture", {"text": "x" * 1_000_000}, "20,000 characters here, not 1,000,000"),
        ("picture", {"text": "x" * 40}, "at most 40 tokens, and this text has 41"),
        ("picture", {"text": "🙂"}, "'🙂', which is not among"),
        ("backward", {"text": ""}, "no next token to learn from"),
        ("picture", {"text": "\ud800"}, "which is not among"),
        ("picture", {"text": None}, "must be a string"),
        ("picture", {}, "missing a required argument: 'text'"),
        ("picture", {"text": "a", "edit": []}, "unexpected keyword argument 'edit'"),
        ("position", {"text": "a", "position": 0, "token": 251}, "from 0 to 250, not 251"),
        ("position", {"text": "a", "position": "0"}, "from 0 to 1, not '0'"),
        ("numbers", {"text": "a", "name": 3}, "no tensor 3"),
        ("code", {"name": None}, "must be a string"),
        ("progress", {"since": "x"}, "number since must be"),
        ("open", {"model": "../../etc/passwd"}, "must be addition, characters or tiny"),
        ("open", {"model": "given"}, "must be addition, characters or tiny"),
        ("learn", {"steps": 10**9, "lr": 1}, "steps must be from 1"),
        ("undo", {}, "nothing to undo"),
        ("secrets", {}, "there is no question 'secrets'"),
        ("__init__", {}, "there is no question"),
    ],
)
def test_bad_questions_are_answered_in_words(server, name, arguments, words):
    status, answer = server.ask(name, **arguments)
    assert status == 422
    assert words in answer["error"]
    assert answer["error"].count("\n") == 0


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"x" * (LARGEST_REQUEST + 1), "application/json", 413),
        (b"{", "application/json", 400), (b"", "application/json", 400),
        (b"\xff", "application/json", 400), (b"[" * 100_000, "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"{}", "text/plain", 415), (b"{}", "application/x-www-form-urlencoded", 415),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_words(server, body, kind, expected):
    status, _, text = server.request("POST", "/api/describe", body, {"Content-Type": kind})
    assert status == expected
    assert json.loads(text)["error"]
    assert server.ask("describe")[0] == 200


def test_training_goes_on_while_questions_are_answered():
    with served(Session.named("addition")) as server:
        assert server.ask("learn", steps=None, lr=1e-3)[0] == 200
        deadline, taken = time.monotonic() + 120, 0
        while taken < 3:
            assert time.monotonic() < deadline
            status, shown = server.ask("picture", text="12+34=0")
            assert status == 200 and shown["loss"] > 0
            state = server.ask("status")[1]
            assert state["running"] and "training" in state["doing"]
            taken = state["taken"]
        assert server.ask("stop")[0] == 200
        assert not server.ask("status")[1]["running"]
        steps = server.ask("progress")[1]["updates"]
        assert steps >= 3
        server.ask("undo")
        server.wait()
        assert server.ask("progress")[1]["updates"] == 0


def test_another_model_and_back():
    with served(Session.named("addition")) as server:
        server.ask("learn", steps=2, lr=1e-3)
        server.wait()
        corpus = "the cat sat on the mat. " * 9
        status, shown = server.ask("open", model="characters", text=corpus)
        assert (status, shown["task"], shown["given"]) == (200, "characters", "addition")
        assert server.ask("describe")[1]["given"] == "addition"  # when the page is loaded again
        status, shown = server.ask("open", model="given")
        assert shown["updates"] == 2


def test_a_failure_of_ours_does_not_end_the_worker():
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        worker.ask("", lambda: 1 / 0).result()
    assert worker.ask("", lambda: 7).result() == 7
    worker.close()


def test_a_course_that_fails_is_told_and_ends():
    def failing():
        yield
        raise MemoryError("too large")

    worker = Worker()
    worker.ask("", lambda: worker.start("training", failing(), None)).result()
    deadline = time.monotonic() + 10
    while worker.status()["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "too large" in worker.status()["failed"]
    assert worker.ask("", lambda: 7).result() == 7
    worker.close()


def test_a_course_of_known_length_ends_with_its_last_step():
    worker, went_on = Worker(), []

    def course():
        yield
        yield
        went_on.append(True)

    worker.ask("", lambda: worker.start("training", course(), 2)).result()
    deadline = time.monotonic() + 10
    while worker.status()["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.ask("", lambda: None).result()
    assert not went_on
    worker.close()


@pytest.fixture
def program():
    """The program, as it was started by a command, and its port."""
    command = [sys.executable, "-m", "npgpt", "explore", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("http://127.0.0.1:") and line.endswith("/ (Ctrl-C ends it)\n")
    yield process, int(line.split(":")[2].split("/")[0])
    process.kill()
    process.communicate()


def test_the_program_serves_until_it_is_stopped(program):
    process, port = program
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode in (0, 130), errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: not found"),
        ([str(TINY_MODEL)], "no tokenizer is known for this model"),
        (["--port", "x"], "--port: must be a whole number"),
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--export", "page"], "--export needs WHERE"),
        (["--text", "a"], "--text needs --export"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, words, capsys):
    try:
        status = main(["explore", "--no-browser", "--port", "0", *arguments])
    except SystemExit as ended:  # of what the parser refuses
        status = ended.code
    assert status == 2
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ")
    assert said.count("\n") == 1


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        ArgumentError, match=r"needs starlette, uvicorn and .*pip install .*explore"
    ):
        libraries()

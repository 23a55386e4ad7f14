"""TinyStories' archive: read in order, in parallel, and never beyond its shards; hostile ones."""

import gzip
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pooch
import pytest

from npgpt import FileError, get_tokenizer, prepro_tinystories
from npgpt.data import tinystories
from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.tinystories import read_shards, read_stories, tokenize_shard
from npgpt.data.token_files import open_tokens
from npgpt.data.tokenizer import BytesTokenizer
from npgpt.prepro_tinystories import main


def stories(number):
    return [f"Story {i} of shard {number}: naïve Tim." for i in range(2 + number)]


def shard(number):
    """A shard as it is in the archive: stories with space around them, and more fields."""
    entries = [{"story": f"\n\n {s} \n", "summary": "-", "source": "x"} for s in stories(number)]
    return json.dumps(entries).encode()


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def pack(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path):
    """Four shards, not in their order, and members that are none."""
    names = ("./data02.json", "data00.json", "data10.txt", "._data01.json", "data03.json")
    members = [member(name, shard(int(name[-7:-5] if "json" in name else 0))) for name in names]
    members += [member("docs", type=tarfile.DIRTYPE), member("docs/data00.json", b"no")]
    return pack(tmp_path / "stories.tar.gz", [*members, member("data01.json", shard(1))])


def written_stories(folder):
    """What is in the two files: one list of stories each."""
    found = []
    for part in ("val", "train"):
        tokens = open_tokens(folder / f"tiny_stories_{part}.bin")
        tokenizer = tokenizer_from_description(tokens.tokenizer_description)
        text = tokenizer.decode(tokens.read(0, len(tokens)))
        first, *rest = text.split("<|endoftext|>")
        assert first == ""
        found.append(rest)
    return found


def run(archive, out, *args, tokenizer="bytes"):
    args = ["--archive", str(archive), "--out", str(out), "--tokenizer", tokenizer, *args]
    return main(args)


def test_shard_0_is_for_validation_and_the_others_follow_in_their_order(archive, tmp_path, capsys):
    assert run(archive, tmp_path / "out") == 0
    assert written_stories(tmp_path / "out") == [stories(0), stories(1) + stories(2) + stories(3)]
    counts = [sum(len(story.encode()) + 1 for story in stories(n)) for n in range(4)]
    *said, following = capsys.readouterr().out.splitlines()
    assert following.startswith("train on it: ") and " --run tiny_stories_run " in following
    assert said == [
        f"{tmp_path}/out/tiny_stories_val.bin: {counts[0]:,} tokens",
        f"{tmp_path}/out/tiny_stories_train.bin: {sum(counts[1:]):,} tokens",
    ]
    assert sorted(os.listdir(tmp_path / "out")) == [
        "tiny_stories_train.bin", "tiny_stories_train.tokenizer.json",
        "tiny_stories_val.bin", "tiny_stories_val.tokenizer.json",
    ]  # fmt: skip


def test_gpt2_is_the_default_and_one_worker_gives_the_same(
    archive, tmp_path, shared_data, monkeypatch
):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    for workers in ("1", "3"):
        args = ["--archive", str(archive), "--out", str(tmp_path / workers), "--workers", workers]
        assert main(args) == 0
        assert written_stories(tmp_path / workers)[0] == stories(0)
    for name in os.listdir(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    assert open_tokens(tmp_path / "1" / "*val.bin").tokenizer_description == {"name": "gpt2"}


def test_the_first_shards_alone(archive, tmp_path):
    assert run(archive, tmp_path, "--shards", "2", "--workers", "1") == 0
    assert written_stories(tmp_path) == [stories(0), stories(1)]


def test_it_runs_by_its_name(archive, tmp_path):
    command = [sys.executable, "-m", "npgpt.prepro_tinystories", "--archive", str(archive)]
    command += ["--out", str(tmp_path), "--tokenizer", "bytes"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert written_stories(tmp_path)[0] == stories(0)


GOOD = [member(f"data{number:02}.json", shard(number)) for number in range(2)]


def test_nothing_is_written_outside_and_other_names_are_passed_over(tmp_path):
    inside = tmp_path / "deep" / "deeper"
    inside.mkdir(parents=True)
    names = ["../data00.json", f"{tmp_path}/data00.json", "a/../../data00.json", "data00.json/../x"]
    evil = [member(name, json.dumps([{"story": "evil"}]).encode()) for name in names]
    links = [
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("hard", type=tarfile.LNKTYPE, linkname="../../evil"),
        member("pipe", type=tarfile.FIFOTYPE),
    ]
    pack(inside / "s.tar.gz", [*evil, *links, *GOOD, *evil])
    assert run(inside / "s.tar.gz", inside / "out") == 0
    assert written_stories(inside / "out") == [stories(0), stories(1)]
    assert sorted(os.listdir(tmp_path)) == ["deep"] and os.listdir(tmp_path / "deep") == ["deeper"]
    assert sorted(os.listdir(inside)) == ["out", "s.tar.gz"]
    assert len(os.listdir(inside / "out")) == 4


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "data00.json is missing"),
        ([*GOOD, member("data03.json", shard(3))], "data02.json is missing"),
        ([*GOOD, GOOD[1]], "data01.json occurs twice"),
        ([GOOD[0], member("data01.json", b"{")], "data01.json: not JSON"),
        (
            [GOOD[0], member("data01.json", b'[{"story": "\\ud800"}]')],
            r"data01.json: the text has '\ud800', which is not a character",
        ),
        (
            [member("data00.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), GOOD[1]],
            "data00.json must be a regular file of up to 1073741824 bytes",
        ),
    ],
)
def test_a_bad_member_is_one_sentence(members, message, tmp_path, capsys):
    pack(tmp_path / "s.tar.gz", members)
    assert run(tmp_path / "s.tar.gz", tmp_path / "out", "--workers", "1") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/s.tar.gz: ") and message in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "s: not JSON"),
        (b"[" * 100_000, "s: not JSON"),
        (b'["\xff"]', "s: not JSON"),
        (b"{}", "s: must be a list of stories"),
        (b"[]", "s: must be a list of stories"),
        (b"[1]", "s: entry 0 has no text called story"),
        (b'[{"story": "a"}, {"story": null}]', "s: entry 1 has no text called story"),
        (b'[{"story": "a"}, {"text": "b"}]', "s: entry 1 has no text called story"),
    ],
)
def test_a_bad_shard_is_one_sentence(content, message):
    with pytest.raises(FileError, match=message) as raised:
        read_stories(content, "s")
    assert "\n" not in str(raised.value)


def test_a_shard_that_is_no_file_is_refused(tmp_path):
    for type in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        pack(tmp_path / "s.tar.gz", [member("data00.json", type=type, linkname="/etc/passwd")])
        with pytest.raises(FileError, match="data00.json must be a regular file"):
            drain(tmp_path / "s.tar.gz")


def drain(path):
    return [number for number, _, _ in read_shards(path)]


def test_a_huge_member_is_not_read(tmp_path):
    with gzip.open(tmp_path / "s.tar.gz", "wb") as file:
        info, _ = member("data00.json", size=1 << 40)
        file.write(info.tobuf() + bytes(10_000))
    with pytest.raises(FileError, match="data00.json must be a regular file of up to"):
        drain(tmp_path / "s.tar.gz")


def test_an_archive_that_is_cut_or_changed_anywhere_is_noticed(tmp_path):
    rng = np.random.default_rng(1)
    noise = json.dumps([{"story": bytes(rng.integers(32, 127, 9000)).decode()}]).encode()
    pack(tmp_path / "s.tar.gz", [member("data00.json", noise), member("data01.json", noise)])
    content = (tmp_path / "s.tar.gz").read_bytes()
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(content)
    assert drain(path) == [0, 1]
    for size in [*range(0, len(content), 97), len(content) - 1, len(content) - 4]:
        path.write_bytes(content[:size])
        with pytest.raises(FileError, match="damaged, or not TinyStories' archive") as raised:
            drain(path)
        assert "\n" not in str(raised.value)
    for at in range(20, len(content), 97):  # behind gzip's header, of which little is checked
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(FileError, match="bad.tar.gz: "):
            drain(path)


def test_a_tar_with_any_byte_changed_ends_well_or_in_one_sentence(tmp_path):
    """Inside gzip, so that its checksum is right: tar's own fields are what is hostile."""
    pack(tmp_path / "s.tar.gz", GOOD)
    content = gzip.decompress((tmp_path / "s.tar.gz").read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        for at in rng.integers(0, 512, 2):
            changed[at] = rng.integers(256)
        head = bytes(changed[:148]) + b" " * 8 + bytes(changed[156:512])
        changed[148:156] = b"%06o\0 " % sum(head)  # tar's checksum of its header
        (tmp_path / "t.tar.gz").write_bytes(gzip.compress(bytes(changed), 1))
        try:
            drain(tmp_path / "t.tar.gz")
        except FileError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "s.tar.gz: No such file or directory"),
        (b"", "s.tar.gz: damaged, or not TinyStories' archive"),
        (b"hello", "s.tar.gz: damaged, or not TinyStories' archive (Not a gzipped file"),
        (gzip.compress(b"hello" * 200, mtime=0), "s.tar.gz: damaged, or not TinyStories' archive"),
    ],
)
def test_no_archive_is_one_sentence(content, message, tmp_path, capsys):
    if content is not None:
        (tmp_path / "s.tar.gz").write_bytes(content)
    assert run(tmp_path / "s.tar.gz", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (tmp_path / "out").exists() == (content is not None)


def test_old_files_stay_when_a_new_archive_is_bad(archive, tmp_path):
    assert run(archive, tmp_path, "--workers", "1") == 0
    before = (tmp_path / "tiny_stories_train.bin").read_bytes()
    pack(tmp_path / "bad.tar.gz", [GOOD[0], member("data01.json", b"{")])
    assert run(tmp_path / "bad.tar.gz", tmp_path, "--workers", "1") == 2
    assert (tmp_path / "tiny_stories_train.bin").read_bytes() == before


def test_more_tokens_than_a_file_can_count_are_refused(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tinystories, "MOST_TOKENS", 150)
    assert run(archive, tmp_path, "--workers", "1") == 2
    assert "more than 150 tokens, which a token file cannot count" in capsys.readouterr().err
    monkeypatch.setattr(tinystories, "MOST_TOKENS", 160)  # of two shards
    assert run(archive, tmp_path, "--workers", "1", "--shards", "2") == 0


def test_it_ends_soon_where_it_is_stopped(archive, tmp_path, monkeypatch):
    """Of a shard that is being tokenized only what has begun is finished."""
    asked = []

    class Slow(BytesTokenizer):
        def encode_pieces(self, pieces):
            asked.append(len(pieces))
            if len(asked) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            return super().encode_pieces(pieces)

    monkeypatch.setattr(prepro_tinystories, "get_tokenizer", lambda name: Slow())
    monkeypatch.setattr("npgpt.data.documents.GROUP", 1)  # each story alone
    entries = [{"story": "x"}] * 100
    long = pack(tmp_path / "long.tar.gz", [member("data00.json", json.dumps(entries).encode())])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # some pytests ignore it
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            prepro_tinystories.main.__wrapped__(
                ["--archive", str(long), "--out", str(tmp_path / "o")]
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 5 and len(asked) < 20
    assert os.listdir(tmp_path / "o") == []


def test_half_a_utf16_pair_is_the_replacement_character(tmp_path, shared_data, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken"))
    content = rb'[{"story": "a \ud800 b"}, {"story": "c"}]'
    tokenizer = get_tokenizer("gpt2")
    tokenize_shard(content, "x", tokenizer, tmp_path / "t", lambda: False)
    text = tokenizer.decode(np.fromfile(tmp_path / "t", "<u2"))
    assert text == "<|endoftext|>a \ufffd b<|endoftext|>c"


def test_a_shard_is_tokenized_story_by_story(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert read_stories(b'[{"story": " a\\n"}, {"story": ""}]', "x") == ["a", ""]
    content, tokenizer = b'[{"story": " a\\n"}, {"story": ""}]', get_tokenizer("bytes")
    assert tokenize_shard(content, "x", tokenizer, tmp_path / "t", lambda: False) == 3
    assert np.fromfile(tmp_path / "t", "<u2").tolist() == [256, 97, 256]
    assert capsys.readouterr().err == ""  # the progress is that of the whole archive


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1, not 0"),
        (["--shards", "1"], "--shards must be from 2 to 100, not 1"),
        (["--shards", "101"], "--shards must be from 2 to 100, not 101"),
        (["--shards", "7", "--workers", "1"], "data04.json is missing"),
        (["--out", "{archive}"], "stories.tar.gz: cannot be created: File exists"),
    ],
)
def test_bad_options_are_one_sentence(args, message, archive, tmp_path, capsys):
    args = [arg.format(archive=archive) for arg in args]
    assert run(archive, tmp_path / "out", *args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_the_download_is_kept_and_used(archive, tmp_path, monkeypatch, capsys):
    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(archive.read_bytes())

        def log_message(self, *_):
            pass

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    for name in ("NPGPT_CACHE", "NPGPT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/s.tar.gz"
        monkeypatch.setattr(prepro_tinystories, "URL", url)
        args = ["--out", str(tmp_path / "out"), "--tokenizer", "bytes", "--workers", "1"]
        assert main(args) == 0
        server.shutdown()
    assert capsys.readouterr().err.startswith(f"downloading {url} to {tmp_path}/cache/npgpt/Tiny")
    assert written_stories(tmp_path / "out")[0] == stories(0)
    assert prepro_tinystories.download().read_bytes() == archive.read_bytes()  # from the cache
    assert capsys.readouterr().err == ""


def test_without_a_server_it_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    for name in ("NPGPT_CACHE", "NPGPT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(prepro_tinystories, "URL", "http://127.0.0.1:9/s.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert main(["--out", str(tmp_path / "out"), "--tokenizer", "bytes"]) == 2
    assert "error: TinyStories cannot be downloaded from http" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

"""The published models and reference files on the Hub: downloaded, checked, resumed, kept.

A file takes its name when its sha256 is right. That is known here, except for gpt2-medium, -large
and -xl: there it is what the server tells with its redirect (X-Linked-Size, X-Linked-Etag), so that
a mirror is trusted with it, and it stays beside the file for later. A server that does not tell it
is refused.

Settings in the environment: NPGPT_CACHE, the folder to keep files in; NPGPT_OFFLINE=1, take only
what is there; NPGPT_MIRROR, a base URL instead of https://huggingface.co, with the same paths.
"""

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

from npgpt.core.config import PUBLISHED
from npgpt.data.tokenizer import GPT2Tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import opened, written
from npgpt.formats.huggingface import CONFIG, write_config

HUB = "https://huggingface.co"
WEIGHTS = "/openai-community/{}/resolve/main/model.safetensors"
STARTER_PACK = "/datasets/karpathy/llmc-starter-pack/resolve/main/{}"
FILES = {  # name -> path on the Hub, size and sha256 of its files
    "gpt2": [
        (
            WEIGHTS.format("gpt2"),
            548_105_171,
            "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
        )
    ],
    "gpt2-medium": [(WEIGHTS.format("gpt2-medium"), None, None)],
    "gpt2-large": [(WEIGHTS.format("gpt2-large"), None, None)],
    "gpt2-xl": [(WEIGHTS.format("gpt2-xl"), None, None)],
    "reference": [
        (
            STARTER_PACK.format("gpt2_124M.bin"),
            497_904_640,
            "3da8b207584030bcdcd207cf7a99952e3421dce92da218b351071857511bf162",
        ),
        (
            STARTER_PACK.format("gpt2_124M_debug_state.bin"),
            549_369_860,
            "a80c4448eed47c561314a2189e62c49b2c7477c265fc2f15c8470d18401693d9",
        ),
    ],
    "hellaswag": [
        (
            STARTER_PACK.format("hellaswag_val.bin"),
            3_762_386,
            "59509ba401e820f2cd8b579141354e8ebc14a20f8e2cc181f1836f1d0e59eb99",
        )
    ],
}
MODELS = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}
PAUSES = (0, 1, 2, 4)  # seconds before each attempt
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20


def fetch(name, folder=None, offline=None):
    """Have the files of a name (FILES) in a folder -> the folder; hellaswag: the file.

    The folder is by default one of that name in the cache. What is there is checked, the rest is
    downloaded or, with offline (default: NPGPT_OFFLINE), refused. A model gets a config.json of our
    own. Raises FileError where a file cannot be had or is another one than published.
    """
    if name not in FILES:
        raise ArgumentError(f"name must be one of {', '.join(FILES)}, not {name}")
    folder = cache(name) if folder is None else Path(folder)
    if offline is None:
        offline = os.environ.get("NPGPT_OFFLINE", "") not in ("", "0")
    for path, size, sha256 in FILES[name]:
        target = folder / Path(path).name
        if os.path.exists(target):
            check(target, sha256)
        elif offline:
            raise FileError(f"{target}: not there; without offline mode it would be downloaded")
        else:
            download(hub() + path, target, size, sha256)
    if name in MODELS and not os.path.exists(folder / CONFIG):
        write_config(folder / CONFIG, PUBLISHED[MODELS[name]], GPT2Tokenizer.eot)
    return target if name == "hellaswag" else folder


def cache(name):
    """The folder in the cache for what has this name."""
    import pooch

    return Path(os.environ.get("NPGPT_CACHE") or pooch.os_cache("npgpt")) / name


def hub():
    """The URL that the paths on the Hub follow."""
    url = os.environ.get("NPGPT_MIRROR") or HUB
    if not url.startswith(("https://", "http://")):
        raise ArgumentError(f"NPGPT_MIRROR must begin with https:// or http://, not be {url}")
    return url.rstrip("/")


def sha256_of(path):
    """The sha256 of a file's content, in hexadecimal."""
    with opened(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(target, sha256):
    """Refuse a file that is there but is not the published one; sha256 None: take the recorded."""
    found = sha256_of(target)
    if sha256 is None and os.path.exists(record(target)):
        with opened(record(target)) as (file, _):
            sha256 = file.read(64).decode("ascii", errors="replace")
    if found != sha256:
        raise FileError(
            f"{target}: there already, but not as published (its sha256 is {found}, expected"
            f" {sha256 or 'one on record'}): move it away or name another folder"
        )


def record(target):
    """The file for the sha256 that the server told of target, in the way of sha256sum."""
    return target.with_name(f"{target.name}.sha256")


def download(url, target, size, sha256):
    """Download to target: aside, from where an earlier attempt stopped, and checked in the end."""
    known = sha256 is not None
    if not known:
        size, sha256 = ask_sha256(url)
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        with open(partial, "r+b") as file:
            if file.seek(0, os.SEEK_END) > size:
                file.truncate(0)
            missing, free = size - file.seek(0, os.SEEK_END), shutil.disk_usage(partial.parent).free
            if missing > free:
                raise FileError(f"{target}: takes {missing} bytes more, but {free} are free there")
            receive(url, file, size, target.name)
            file.flush()
            os.fsync(file.fileno())
        found = sha256_of(partial)
        if found != sha256:
            partial.unlink()
            raise FileError(
                f"{url}: wrong bytes, not kept (their sha256 is {found}, expected {sha256})"
            )
        if not known:
            with written(record(target)) as file:
                file.write(f"{sha256}  {target.name}\n".encode())
        os.replace(partial, target)
    except OSError as error:
        raise FileError(f"{target}: cannot be written: {error.strerror or error}") from error


def receive(url, file, size, label):
    """Fill the file up to size bytes, in several attempts if need be."""
    for pause in PAUSES:
        time.sleep(pause)
        fault = transfer(url, file, size, label)
        if fault is None:
            return
    raise FileError(
        f"{url}: cannot be downloaded: {fault} ({len(PAUSES)} attempts; what has come is kept, and"
        " the next download goes on from there)"
    )


def transfer(url, file, size, label):
    """Go on from the file's end -> None when it is complete, else what another attempt may mend."""
    from http.client import HTTPException

    from tqdm import tqdm

    start = file.seek(0, os.SEEK_END)
    if start == size:
        return None
    try:
        with ask(url, start) as answer:
            if answer.status == 429 or answer.status >= 500:
                return refusal(answer)
            start = first_byte(url, answer, start, size)
            if start is None:
                file.truncate(0)
                return "the server sent another range than it was asked for"
            file.seek(start)
            with tqdm(
                total=size, initial=start, desc=label, unit="B", unit_scale=True, disable=None
            ) as bar:
                while start < size and (piece := answer.read1(min(CHUNK, size - start))):
                    file.write(piece)
                    start += len(piece)
                    bar.update(len(piece))
    except (OSError, HTTPException) as error:
        return reason(error)
    return None if start == size else f"the connection broke off at byte {start} of {size}"


def first_byte(url, answer, start, size):
    """The place in the file of the first byte of an answer; None where it is not one asked for."""
    if answer.status == 200:  # also from a server that knows no ranges
        place, total = 0, answer.headers.get("Content-Length", str(size))
    elif answer.status == 206:
        content = answer.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", content)
        if not match or match[1] != str(start):
            return None
        place, total = start, match[2]
    else:
        raise FileError(f"{url}: {refusal(answer)}")
    if total != str(size):
        raise FileError(f"{url}: the server's file has {total} bytes, but {size} are expected")
    return place


def ask_sha256(url):
    """What the Hub tells of a file, with its redirect to it -> size, sha256."""
    from http.client import HTTPException

    try:
        with ask(url, method="HEAD", follow=False) as answer:
            if answer.status >= 400:
                raise FileError(f"{url}: {refusal(answer)}")
            size = answer.headers.get("X-Linked-Size", "")
            sha256 = answer.headers.get("X-Linked-Etag", "").strip('"')
    except (OSError, HTTPException) as error:
        raise FileError(f"{url}: cannot be downloaded: {reason(error)}") from error
    if not re.fullmatch("[0-9]+", size) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise FileError(
            f"{url}: the server does not tell the file's size and sha256 (X-Linked-Size,"
            " X-Linked-Etag), without which it cannot be checked"
        )
    return int(size), sha256


def ask(url, start=0, method="GET", follow=True):
    """Send a request over http or https -> the answer, whatever its status."""
    from urllib import error, request

    headers = {"Range": f"bytes={start}-"} if start else {}
    director = request.OpenerDirector()  # the usual one would also open ftp and file
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.UnknownHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        *([request.HTTPRedirectHandler] if follow else []),
    ):
        director.add_handler(handler())
    try:
        return director.open(request.Request(url, headers=headers, method=method), timeout=TIMEOUT)
    except error.HTTPError as answer:
        return answer
    except ValueError as fault:
        raise ArgumentError(f"{url}: no URL: {fault}") from fault


def refusal(answer):
    """An answer's status, on one line."""
    return " ".join(f"the server answered {answer.status} {answer.reason}".split())


def reason(error):
    """What an exception of the network says, on one line."""
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__

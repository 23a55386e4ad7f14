"""Published models and reference files of the Hugging Face Hub: download, verify, cache.

A file is kept only if its sha256 matches. The expected one is listed here or, for gpt2-medium,
-large and -xl, sent by the server with its redirect (X-Linked-Size, X-Linked-Etag), so a mirror is
trusted for these; it is then recorded beside the file. A server that does not send it is refused.

Environment variables: NPGPT_CACHE, the cache folder; NPGPT_OFFLINE=1, never download;
NPGPT_MIRROR, a base URL instead of https://huggingface.co, with the same paths.
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
from npgpt.files import PARTIAL, atomic_write, cache_folder, is_offline, open_for_reading
from npgpt.formats.huggingface import CONFIG, config_json
from npgpt.wording import size_text

HUB = "https://huggingface.co"
WEIGHTS = "/openai-community/{}/resolve/main/model.safetensors"
STARTER_PACK = "/datasets/karpathy/llmc-starter-pack/resolve/main/{}"
FILES = {  # name -> files: path on the Hub, bytes, sha256 (None: the server sends them)
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
CHUNK = 1 << 20  # bytes


def fetch(name, folder=None, offline=None):
    """Download the files of `name`, a key of FILES, unless present -> their folder, or the file.

    It is the file for what is one file and no model. folder defaults to one of that name in the
    cache. Existing files are verified; missing ones are downloaded or, with offline (default:
    NPGPT_OFFLINE), an error. Models get a config.json. Raises FileError where a file cannot be
    downloaded or is not the published one.
    """
    if name not in FILES:
        raise ArgumentError(f"name must be one of {', '.join(FILES)}, not {name}")
    folder = cache_folder() / name if folder is None else Path(folder)
    if offline is None:
        offline = is_offline()
    for path, size, sha256 in FILES[name]:
        target = folder / Path(path).name
        if os.path.exists(target):
            verify(target, sha256)
        elif offline:
            raise FileError(f"{target}: not found, and offline mode forbids downloading it")
        else:
            download(base_url() + path, target, size, sha256)
    if name in MODELS and not os.path.exists(folder / CONFIG):
        with atomic_write(folder / CONFIG) as file:
            file.write(config_json(PUBLISHED[MODELS[name]], GPT2Tokenizer.eot))
    return folder if name in MODELS or len(FILES[name]) > 1 else target


def base_url():
    """The base URL: NPGPT_MIRROR or the Hub."""
    url = os.environ.get("NPGPT_MIRROR") or HUB
    if not url.startswith(("https://", "http://")):
        raise ArgumentError(f"NPGPT_MIRROR must begin with https:// or http://, not be {url}")
    return url.rstrip("/")


def sha256_of(path):
    """The sha256 of a file's content, in hexadecimal."""
    with open_for_reading(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(target, sha256):
    """Raise FileError unless the file has this sha256 (None: the one recorded beside it)."""
    found = sha256_of(target)
    if sha256 is None and os.path.exists(sha256_path(target)):
        with open_for_reading(sha256_path(target)) as (file, _):
            sha256 = file.read(64).decode("ascii", errors="replace")
    if found != sha256:
        raise FileError(
            f"{target}: exists, but is not the published file (sha256 {found}, expected"
            f" {sha256 or 'one recorded beside it'}): move it away, or choose another folder"
        )


def sha256_path(target):
    """The file that records the server's sha256 of target, in sha256sum's format."""
    return target.with_name(f"{target.name}.sha256")


def download(url, target, size, sha256):
    """Download to target through a .partial file, resuming earlier attempts, and verify it."""
    known = sha256 is not None
    if not known:
        size, sha256 = fetch_size_and_sha256(url)
    partial = target.with_name(f"{target.name}{PARTIAL}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        with open(partial, "r+b") as file:
            if file.seek(0, os.SEEK_END) > size:
                file.truncate(0)
            missing, free = size - file.seek(0, os.SEEK_END), shutil.disk_usage(partial.parent).free
            if missing > free:
                raise FileError(
                    f"{target}: needs {size_text(missing)}, but only {size_text(free)} is free"
                )
            transfer_with_retries(url, file, size, target.name)
            file.flush()
            os.fsync(file.fileno())
        found = sha256_of(partial)
        if found != sha256:
            partial.unlink()
            raise FileError(f"{url}: wrong sha256, discarded ({found}, expected {sha256})")
        if not known:
            with atomic_write(sha256_path(target)) as file:
                file.write(f"{sha256}  {target.name}\n".encode())
        os.replace(partial, target)
    except OSError as error:
        raise FileError(f"{target}: cannot be written: {error.strerror or error}") from error


def transfer_with_retries(url, file, size, label):
    """Complete the file to `size` bytes, retrying after PAUSES."""
    for pause in PAUSES:
        time.sleep(pause)
        problem = transfer(url, file, size, label)
        if problem is None:
            return
    raise FileError(
        f"{url}: cannot be downloaded: {problem} ({len(PAUSES)} attempts; the partial file is"
        " kept and will be resumed)"
    )


def transfer(url, file, size, label):
    """Append to the file -> None when complete, else the reason to retry."""
    from http.client import HTTPException

    from tqdm import tqdm

    start = file.seek(0, os.SEEK_END)
    if start == size:
        return None
    try:
        with send_request(url, start) as response:
            if response.status == 429 or response.status >= 500:
                return status_line(response)
            start = first_byte(url, response, start, size)
            if start is None:
                file.truncate(0)
                return "the server sent a range that was not requested"
            file.seek(start)
            with tqdm(
                total=size, initial=start, desc=label, unit="B", unit_scale=True, disable=None
            ) as bar:
                while start < size and (piece := response.read1(min(CHUNK, size - start))):
                    file.write(piece)
                    start += len(piece)
                    bar.update(len(piece))
    except (OSError, HTTPException) as error:
        return error_text(error)
    return None if start == size else f"the connection closed at byte {start} of {size}"


def first_byte(url, response, start, size):
    """The file offset of a response's first byte; None if its range is not the requested one."""
    if response.status == 200:  # also from a server without range support
        offset, total = 0, response.headers.get("Content-Length", str(size))
    elif response.status == 206:
        content = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", content)
        if not match or match[1] != str(start):
            return None
        offset, total = start, match[2]
    else:
        raise FileError(f"{url}: {status_line(response)}")
    if total != str(size):
        raise FileError(f"{url}: the server's file is {total} bytes long, not {size}")
    return offset


def fetch_size_and_sha256(url):
    """Ask the Hub for a file, not following its redirect -> size in bytes, sha256."""
    from http.client import HTTPException

    try:
        with send_request(url, method="HEAD", follow=False) as response:
            if response.status >= 400:
                raise FileError(f"{url}: {status_line(response)}")
            size = response.headers.get("X-Linked-Size", "")
            sha256 = response.headers.get("X-Linked-Etag", "").strip('"')
    except (OSError, HTTPException) as error:
        raise FileError(f"{url}: cannot be downloaded: {error_text(error)}") from error
    if not re.fullmatch("[0-9]+", size) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise FileError(
            f"{url}: the server does not send the file's size and sha256 (X-Linked-Size,"
            " X-Linked-Etag), so it cannot be verified"
        )
    return int(size), sha256


def send_request(url, start=0, method="GET", follow=True):
    """Send a request over http or https -> the response, whatever its status."""
    from urllib import error, request

    headers = {"Range": f"bytes={start}-"} if start else {}
    director = request.OpenerDirector()  # the default opener also opens ftp: and file: URLs
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
    except error.HTTPError as response:
        return response
    except ValueError as problem:
        raise ArgumentError(f"{url}: not a valid URL: {problem}") from problem


def status_line(response):
    """A response's status, on one line."""
    return " ".join(f"the server answered {response.status} {response.reason}".split())


def error_text(error):
    """The message of a network error, on one line."""
    return " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__

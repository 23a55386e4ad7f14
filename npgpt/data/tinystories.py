"""TinyStories' archive: its shards read, and tokenized on several threads."""

import gzip
import json
import re
import shutil
import tarfile
import zlib
from collections import deque
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import PurePosixPath
from threading import Event

from npgpt.data.documents import group_pieces
from npgpt.data.token_files import MAGIC
from npgpt.errors import ArgumentError, FileError
from npgpt.files import atomic_write, open_for_reading, pack_header

SHARD = re.compile(r"data(\d\d)\.json")
LARGEST_SHARD = 1 << 30  # bytes, far above those of the archive
ALL = 100  # shards that can have a name
MOST_TOKENS = 2**31 - 1
CHUNK = 1 << 20  # bytes


def read_shards(path):
    """Yield the archive's shards in its order: number, content, bytes of the archive read.

    Other members are skipped. Raises FileError where a shard is not a regular file or too large,
    and where the archive is damaged, which may show only at its end.
    """
    with open_for_reading(path) as (file, _):
        try:
            with (
                gzip.GzipFile(fileobj=file) as plain,
                tarfile.open(fileobj=plain, mode="r|") as tar,
            ):
                for member in tar:
                    shard = SHARD.fullmatch(str(PurePosixPath(member.name)))  # without a ./
                    if shard is None:
                        continue
                    if not member.isreg() or member.size > LARGEST_SHARD:
                        raise FileError(
                            f"{path}: {member.name} must be a regular file of up to"
                            f" {LARGEST_SHARD} bytes"
                        )
                    yield int(shard[1]), tar.extractfile(member).read(), file.tell()
                while plain.read(CHUNK):
                    pass  # behind tar's end is gzip's, with the checksum
        except FileError:
            raise
        except (EOFError, ValueError, gzip.BadGzipFile, tarfile.TarError, zlib.error) as error:
            raise FileError(
                f"{path}: damaged, or not TinyStories' archive ({error}): if it is a download,"
                " delete it and download it again"
            ) from error


def read_stories(content, where):
    """A shard's bytes -> its stories, stripped."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{where}: not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise FileError(f"{where}: must be a list of stories")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("story"), str):
            raise FileError(f"{where}: entry {i} has no text called story")
    return [entry["story"].strip() for entry in entries]


def tokenize_shard(content, where, tokenizer, path, stopped):
    """Write a shard's tokens, raw uint16, to path -> their count. Ends where stopped() is true."""
    count = 0
    with atomic_write(path) as file:
        for group in group_pieces((story, True) for story in read_stories(content, where)):
            if stopped():
                raise CancelledError
            try:
                tokens = tokenizer.encode_pieces(group)
            except ArgumentError as error:  # of a character that cannot be encoded
                raise FileError(f"{where}: {error}") from error
            file.write(tokens.astype("<u2"))
            count += len(tokens)
    return count


def tokenize_shards(archive, tokenizer, folder, shards, workers):
    """Write the tokens of each of the first shards to folder / number -> their counts, in order.

    The shards are unpacked here and tokenized on `workers` threads. At most workers + 1 shards are
    in memory.
    """
    from tqdm import tqdm

    counts, running, stopped = {}, deque(), Event()

    def collect():
        number, future = running.popleft()
        counts[number] = future.result()
        if sum(counts.values()) > MOST_TOKENS:
            raise ArgumentError(
                f"{archive}: more than {MOST_TOKENS:,} tokens, which a token file cannot count:"
                " take fewer --shards"
            )

    executor = ThreadPoolExecutor(workers)
    try:
        with tqdm(total=archive.stat().st_size, unit="B", unit_scale=True, disable=None) as bar:
            for number, content, position in read_shards(archive):
                if number >= shards:
                    continue
                if number in counts or number in dict(running):
                    raise FileError(f"{archive}: data{number:02}.json occurs twice")
                if len(running) == workers:
                    collect()
                where, path = f"{archive}: data{number:02}.json", folder / f"{number:02}"
                words = content, where, tokenizer, path, stopped.is_set
                job = executor.submit(tokenize_shard, *words)
                running.append((number, job))
                bar.update(position - bar.n)
            while running:
                collect()
    finally:
        stopped.set()
        executor.shutdown(cancel_futures=True)  # some are left where something went wrong
    if shards == ALL:  # without a gap
        shards = max(2, max(counts, default=0) + 1)
    for number in range(shards):
        if number not in counts:
            raise FileError(f"{archive}: data{number:02}.json is missing")
    return [counts[number] for number in range(shards)]


def join(path, parts, count, companions):
    """Write a token file of count tokens from files of raw uint16, which are used up.

    companions are as in `atomic_write`.
    """
    with atomic_write(path, companions) as out:
        out.write(pack_header(MAGIC, 1, count))
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, out, CHUNK)
            part.unlink()  # so that no tokens stay on the disk twice

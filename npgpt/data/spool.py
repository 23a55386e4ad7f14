"""Texts of any size to token files: tokens go to disk as they come, and are split up at the end.

Which documents are for validation, the last ones, is known only then. So all tokens go into what
becomes the file for training; those for validation are copied out of it, and cut off. Which
characters there are is known only then, too: until then they are numbered as they come.
"""

import os
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import numpy as np

from npgpt.core.threads import get_threads
from npgpt.data.descriptions import description_file
from npgpt.data.documents import group_pieces
from npgpt.data.prepare import make_folder, validation_count
from npgpt.data.token_files import DTYPES, check_range, header, open_writer
from npgpt.data.tokenizer import CharsTokenizer, get_tokenizer
from npgpt.errors import FileError
from npgpt.files import Replacement, atomic_write, sweep
from npgpt.wording import counted

CHUNK = 1 << 20  # tokens
CHARS = "chars"
NO_CHARACTER = 0x110000  # one more than the last code point, for end-of-text


def code_points(pieces):
    """Pieces -> their code points int32 (N,), with NO_CHARACTER in front of each document."""
    parts = []
    for text, begins in pieces:
        if begins:
            parts.append([NO_CHARACTER])
        parts.append(np.frombuffer(text.encode("utf-32-le"), "<i4"))
    return np.concatenate(parts, dtype="<i4") if parts else np.empty(0, "<i4")


class Characters:
    """The distinct code points of a text, numbered from 0 in the order in which they come."""

    def __init__(self):
        self._found = np.empty(0, "<i4")
        self._numbers = np.full(NO_CHARACTER + 1, -1, "<i4")  # of each code point

    def __len__(self):
        return len(self._found)

    def number(self, points):
        """The numbers of code points (N,)."""
        numbers = self._numbers[points]
        if numbers.size and numbers.min() < 0:
            new = np.unique(points[numbers < 0])
            self._numbers[new] = len(self) + np.arange(len(new))
            self._found = np.concatenate([self._found, new])
            numbers = self._numbers[points]
        return numbers

    def sort(self):
        """The CharsTokenizer of the characters; and of each number the token that it becomes."""
        order = np.argsort(self._found)
        tokens = np.empty(len(self), "<i4")
        tokens[order] = np.arange(len(self))  # NO_CHARACTER, the last, is the tokenizer's eot
        return CharsTokenizer("".join(map(chr, self._found[order][:-1]))), tokens


class Spool:
    """The tokens of a stream of pieces (`split_documents`), in what becomes the token file at path.

    `n_tokens` and `n_documents` count them. Where each document starts is in a file without a name.
    """

    def __init__(self, path, name, format):
        self.path, self.format, self.dtype = path, format, DTYPES[format]
        self.n_tokens = self.n_documents = 0
        self.characters = Characters() if name == CHARS else None
        self.tokenizer = None if name == CHARS else get_tokenizer(name)
        self._tokens_of = None  # of each number, where the characters are numbered
        train = Replacement(path)
        if os.name != "nt":  # there no process is known to run, and the file may be in use
            sweep(train.target, old=False)  # what a killed process left may fill the disk
        self._partial, self._offset = train.partial, len(header(format, 0))
        with ExitStack() as undo:
            self._starts = undo.enter_context(tempfile.TemporaryFile(dir=path.parent))  # int64
            undo.callback(self._partial.unlink, missing_ok=True)
            self._file = undo.enter_context(open(self._partial, "w+b"))
            self._file.write(header(format, 0))
            undo.pop_all()

    def close(self):
        """Remove what is not a token file with a name, also what is not written of it yet."""
        for file in (self._file, self._starts):
            with suppress(OSError):
                file.close()
        with suppress(OSError):
            self._partial.unlink()

    def take(self, pieces):
        """Take in all pieces, encoded on all cores, with a few groups of them in memory."""
        n_threads = get_threads()
        pool, waiting = ThreadPoolExecutor(n_threads), deque()
        try:
            for group in group_pieces(pieces):
                waiting.append(pool.submit(self._encode, group))
                if len(waiting) > 2 * n_threads:
                    self._append(waiting.popleft().result())
            for encoded in waiting:
                self._append(encoded.result())
        finally:
            pool.shutdown(cancel_futures=True)  # some are left where something went wrong
        if self.characters is not None and self.n_tokens:
            self.tokenizer, self._tokens_of = self.characters.sort()

    def _encode(self, pieces):
        """Pieces -> tokens (N,), or code points; and where end-of-text is among them."""
        if self.characters is not None:
            points = code_points(pieces)
            return points, np.flatnonzero(points == NO_CHARACTER)
        tokens = self.tokenizer.encode_pieces(pieces).astype(self.dtype)
        return tokens, np.flatnonzero(tokens == self.tokenizer.eot)

    def _append(self, encoded):
        tokens, starts = encoded
        if self.characters is not None:
            tokens = self.characters.number(tokens)
            check_range(self.path, 0, int(tokens.max(initial=0)), self.format)
        self._file.write(tokens.astype(self.dtype, copy=False))
        self._starts.write(starts + self.n_tokens)
        self.n_tokens += len(tokens)
        self.n_documents += len(starts)

    def cut(self, fraction):
        """Where the last documents begin, those for validation, or the end of one alone."""
        if self.n_documents == 1:
            return self.n_tokens - validation_count(self.n_tokens, fraction)
        first = self.n_documents - validation_count(self.n_documents, fraction)
        self._starts.seek(8 * first)
        return int.from_bytes(self._starts.read(8), "little")

    def copy(self, path, start):
        """Write the tokens from start on as a token file, with its tokenizer's description."""
        companions = description_file(path, self.tokenizer.description)
        with open_writer(path, self.n_tokens - start, self.format, companions) as append:
            for _, tokens in self._chunks(self._file, start, self.n_tokens):
                append(tokens)

    def finish(self, stop):
        """Make the token file of the tokens up to stop, with its tokenizer's description."""
        companions = description_file(self.path, self.tokenizer.description)
        self._file.close()
        with atomic_write(self.path, companions, begun=self._partial) as file:
            file.truncate(self._place(stop))
            file.write(header(self.format, stop))
            if self._tokens_of is not None:
                for i, tokens in self._chunks(file, 0, stop):
                    file.seek(self._place(i))
                    file.write(tokens.astype(self.dtype))

    def _place(self, i):
        """The place in the file of token i, in bytes."""
        return self._offset + self.dtype.itemsize * i

    def _chunks(self, file, start, stop):
        """Yield the tokens from start to stop with their indices, CHUNK at a time."""
        for i in range(start, stop, CHUNK):
            file.seek(self._place(i))
            data = file.read(self._place(min(i + CHUNK, stop)) - self._place(i))
            tokens = np.frombuffer(data, self.dtype)
            if self._tokens_of is not None:
                tokens = self._tokens_of[tokens]
            yield i, tokens


def write_stream(pieces, name, tokenizer, folder, fraction, format, what):
    """Write NAME_val.bin and NAME_train.bin of pieces, with the tokenizer's description.

    -> their counts of tokens, {split: N}. Raises FileError, which begins with `what`, where there
    is no text.
    """
    make_folder(folder)
    validation_count(2, fraction)  # raises for a bad one before all the work
    val, train = (folder / f"{name}_{split}.bin" for split in ("val", "train"))
    try:
        Replacement(val)  # raises, before all the work, where no file can be written
        spool = Spool(train, tokenizer, format)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        spool.take(pieces)
        if not spool.n_tokens:
            raise FileError(f"{what}: contains no text")
        cut = spool.cut(fraction)
        spool.copy(val, cut)
        spool.finish(cut)
    except OSError as error:  # of the temporary files
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        spool.close()
    counts = {"val": spool.n_tokens - cut, "train": cut}
    for path, count in zip((val, train), counts.values(), strict=True):
        print(f"{path}: {counted(count, 'token')}")
    return counts

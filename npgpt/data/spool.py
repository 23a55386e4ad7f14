"""Texts of any size to token files: tokens go to disk as they come, and are split up at the end.

Which documents are for validation, the last ones, is known only then. So is which characters
there are: their code points take the tokens' place until then.
"""

import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import numpy as np

from npgpt.core.threads import get_threads
from npgpt.data.descriptions import description_file
from npgpt.data.documents import group_pieces
from npgpt.data.prepare import make_folder, validation_count
from npgpt.data.token_files import open_writer
from npgpt.data.tokenizer import CharsTokenizer, get_tokenizer
from npgpt.errors import FileError
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


class Spool:
    """The tokens of a stream of pieces (`split_documents`) in a temporary file of a folder.

    They are uint16 or, where code points take their place, int32. `n_tokens` and `n_documents`
    count them. The file has no name where the system allows it, so that nothing is left of it
    whatever ends the process.
    """

    def __init__(self, folder, name):
        self.name, self.tokenizer = name, None if name == CHARS else get_tokenizer(name)
        self.n_tokens = self.n_documents = 0
        self._characters = np.zeros(NO_CHARACTER + 1, bool) if name == CHARS else None
        self._dtype = np.dtype("<i4" if name == CHARS else "<u2")
        with ExitStack() as undo:
            self._tokens = undo.enter_context(tempfile.TemporaryFile(dir=folder))
            self._starts = tempfile.TemporaryFile(dir=folder)  # int64, of each document
            undo.pop_all()

    def close(self):
        """Remove the temporary files, what is not written of them yet too."""
        for file in (self._tokens, self._starts):
            with suppress(OSError):
                file.close()

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
        if self.name == CHARS and self.n_tokens:
            characters = np.flatnonzero(self._characters[:NO_CHARACTER])
            self.tokenizer = CharsTokenizer("".join(map(chr, characters)))

    def _encode(self, pieces):
        """Pieces -> tokens (N,), or code points; and where end-of-text is among them."""
        if self.tokenizer is None:
            tokens = code_points(pieces)
            self._characters[tokens] = True
            return tokens, np.flatnonzero(tokens == NO_CHARACTER)
        tokens = self.tokenizer.encode_pieces(pieces).astype(self._dtype)
        return tokens, np.flatnonzero(tokens == self.tokenizer.eot)

    def _append(self, encoded):
        tokens, starts = encoded
        self._tokens.write(tokens)
        self._starts.write(starts + self.n_tokens)
        self.n_tokens += len(tokens)
        self.n_documents += len(starts)

    def split(self, fraction):
        """The spans of tokens of `val`, the last documents or the end of one alone, and `train`."""
        if self.n_documents == 1:
            cut = self.n_tokens - validation_count(self.n_tokens, fraction)
        else:
            first = self.n_documents - validation_count(self.n_documents, fraction)
            self._starts.seek(8 * first)
            cut = int.from_bytes(self._starts.read(8), "little")
        return {"val": (cut, self.n_tokens), "train": (0, cut)}

    def write(self, path, start, stop, format):
        """Write the tokens from start to stop as a token file, with its tokenizer's description."""
        ids = None
        if self.name == CHARS:
            ids = np.cumsum(self._characters, dtype="<i4") - 1  # of each code point
            ids[NO_CHARACTER] = self.tokenizer.eot
        companions = description_file(path, self.tokenizer.description)
        with open_writer(path, stop - start, format, companions) as append:
            size = self._dtype.itemsize
            self._tokens.seek(size * start)
            for i in range(start, stop, CHUNK):
                data = self._tokens.read(size * min(CHUNK, stop - i))
                chunk = np.frombuffer(data, self._dtype)
                append(chunk if ids is None else ids[chunk])


def write_stream(pieces, name, tokenizer, folder, fraction, format, what):
    """Write NAME_val.bin and NAME_train.bin of pieces, with the tokenizer's description.

    -> their counts of tokens, {split: N}. Raises FileError, which begins with `what`, where there
    is no text.
    """
    make_folder(folder)
    validation_count(2, fraction)  # raises for a bad one before all the work
    try:
        spool = Spool(folder, tokenizer)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        spool.take(pieces)
        if not spool.n_tokens:
            raise FileError(f"{what}: contains no text")
        counts = {}
        for split, (start, stop) in spool.split(fraction).items():
            path = folder / f"{name}_{split}.bin"
            spool.write(path, start, stop, format)
            counts[split] = stop - start
            print(f"{path}: {counted(counts[split], 'token')}")
        return counts
    except OSError as error:  # of the temporary files
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        spool.close()

"""Documents from texts of any size, a piece at a time: plain or compressed files, standard input.

A document longer than PIECE comes in several pieces. They are cut in front of a space or newline
that follows something else, where GPT-2's tokenizer ends a token whatever comes next; only where
there is no such place in LONGEST characters, anywhere.
"""

import codecs
import gzip
import json
import re
import sys
import zlib
from contextlib import ExitStack, contextmanager

from npgpt.data.sniff import HEAD, what_it_is
from npgpt.data.tokenizer import END_OF_TEXT
from npgpt.errors import ArgumentError, FileError
from npgpt.files import open_for_reading
from npgpt.wording import install_extra

PIECE = 1 << 20  # characters
LONGEST = 16 * PIECE
BLOCK = 1 << 20  # bytes
GROUP = 1 << 18  # characters, about, that are encoded at once
STDIN = "-"
BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
VISIBLE = re.compile(r"\S")
CUT = re.compile(r"(?<=\S)[ \n]")
LAST_CUT = re.compile(rf"(?s:.*){CUT.pattern}")


def find_line_end(buffer, start, begins, is_last):
    """The end of the line that begins at start, and the start of the next one; None: not yet."""
    end = buffer.find("\n", start) + 1
    return (end, end) if end else None


def find_blank_lines(buffer, start, begins, is_last):
    """As find_line_end, for what ends with blank lines.

    begins: whether nothing of the document has come before start.
    """
    found = BLANK_LINES.search(buffer, start + begins)  # a document has one character at least
    if not found or not (
        is_last or VISIBLE.search(buffer, found.end())
    ):  # more blank lines may come
        return None
    return found.end(), found.end()


def find_end_of_text(buffer, start, begins, is_last):
    """As find_line_end, for what ends with END_OF_TEXT, which is not a part of it."""
    end = buffer.find(END_OF_TEXT, start)
    return (end, end + len(END_OF_TEXT)) if end >= 0 else None


def find_none(buffer, start, begins, is_last):
    """As find_line_end, for a file that is one document."""
    return None


# name -> where a document ends
DOCUMENTS = {
    "file": find_none,
    "blank": find_blank_lines,
    "line": find_line_end,
    "eot": find_end_of_text,
}


def read_pieces(paths, by="file", field=None, progress=lambda n_bytes: None):
    """Yield pieces of the documents in files: pairs of a text and whether a document begins there.

    paths may have STDIN among them, and names that end in .gz or .zst. by is in DOCUMENTS; with
    field each line is a JSON object, whose field of that name is a document. Documents without any
    text are left out. progress is called with the number of bytes that have been read since its
    last call. Raises FileError where a file is not UTF-8, not JSON, or damaged.
    """
    for path in paths:
        chunks = read_chunks(path, progress)
        if field is None:
            yield from split_documents(chunks, by)
        else:
            for text in json_fields(chunks, field, path):
                yield from split_documents([text], "file")


def split_documents(chunks, by):
    """Texts that follow each other -> pairs of a piece and whether a document begins there."""
    find_end = DOCUMENTS[by]
    held = ""  # the blank beginning of a document
    begins = True

    def piece(text):
        nonlocal held, begins
        held += text
        if begins and not held.strip():
            return
        yield held, begins
        held, begins = "", False

    rest = ""
    for chunk, is_last in with_last(chunks):
        buffer, start = rest + chunk, 0
        while found := find_end(buffer, start, begins and not held, is_last):
            end, following = found
            yield from piece(buffer[start:end])
            held, begins, start = "", True, following
        while len(buffer) - start > PIECE and (cut := last_cut(buffer, start)):
            yield from piece(buffer[start:cut])
            start = cut
        rest = buffer[start:]
    if by == "line" and rest:
        rest += "\n"
    yield from piece(rest)


def last_cut(buffer, start):
    """The last place within PIECE at which the buffer may be cut, or the next; None: not yet."""
    found = LAST_CUT.match(buffer, start + 1, start + PIECE)
    if found:
        return found.end() - 1
    found = CUT.search(buffer, start + PIECE, start + LONGEST)
    if found:
        return found.start()
    return start + LONGEST if len(buffer) - start > LONGEST + len(END_OF_TEXT) else None


def remedy(path):
    """What to do with a file that is not UTF-8 text, by what it is."""
    kind, head = None, b""
    if path != STDIN:
        with open_for_reading(path) as (file, size):
            head = file.read(HEAD)
            kind = what_it_is(head, size)
    if kind is not None:
        return f" but {kind}: save it as plain text"
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in head and not is_utf16:
        return " but binary data: save it as plain text"
    encoding = "utf-16" if is_utf16 else "latin1"
    return f": save it as UTF-8, for example by iconv -f {encoding} -t utf-8"


def with_last(items):
    """Yield pairs of an item and whether it is the last one; one empty text where there is none."""
    before = ""
    for item in items:
        yield before, False
        before = item
    yield before, True


def json_fields(chunks, field, path):
    """The texts that JSON lines have in this field; blank lines are left out."""
    number = 0
    for line in lines(chunks):
        number += 1
        if not line.strip():
            continue
        try:
            text = json.loads(line)[field]
            if not isinstance(text, str):
                raise TypeError("not a text")
            text.encode("utf-8")  # half a character, as JSON can have, is none
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(
                f"{path}: line {number} is not a JSON object with a text as its {field!r}"
            ) from error
        yield text


def lines(chunks):
    """The lines of texts that follow each other, without their ends."""
    parts = []  # of a line that is not complete
    for chunk in chunks:
        *whole, rest = chunk.split("\n")
        for line in whole:
            yield "".join([*parts, line])
            parts = []
        parts.append(rest)
    yield "".join(parts)


def read_chunks(path, progress):
    """The text of a file in chunks, without a byte order mark."""
    decoder, n_before, at_start = codecs.getincrementaldecoder("utf-8")(), 0, True
    with open_text(path, progress) as file:
        while True:
            try:
                data = file.read(BLOCK)
            except (OSError, EOFError, zlib.error) as error:
                raise FileError(f"{path}: damaged, or not compressed: {error}") from error
            n_pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                at = n_before - n_pending + error.start
                raise FileError(f"{path}: not UTF-8 text (byte {at}){remedy(path)}") from error
            n_before += len(data)
            if text:
                yield text.removeprefix("\ufeff") if at_start else text
                at_start = False
            if not data:
                return


@contextmanager
def open_text(path, progress):
    """Open a file, or STDIN, for reading its bytes, decompressed by its name."""
    name = str(path)
    with ExitStack() as stack:
        raw = sys.stdin.buffer
        if name != STDIN:
            raw, _ = stack.enter_context(open_for_reading(path))
        counted = Counted(raw, progress)
        if name.endswith(".gz"):
            yield stack.enter_context(gzip.GzipFile(fileobj=counted))
        elif name.endswith(".zst"):
            zstd = zstandard()
            try:
                yield zstd.ZstdDecompressor().stream_reader(counted, read_across_frames=True)
            except zstd.ZstdError as error:
                raise FileError(f"{path}: damaged, or not compressed: {error}") from error
        else:
            yield counted


def zstandard():
    """The package zstandard, which is an extra."""
    try:
        import zstandard
    except ImportError as error:
        raise ArgumentError(f"reading .zst needs zstandard: {install_extra('zst')}") from error
    return zstandard


class Counted:
    """A file whose reader is told of."""

    def __init__(self, file, progress):
        self.file, self.progress = file, progress

    def read(self, size=-1):
        """Read up to size bytes."""
        data = self.file.read(size)
        self.progress(len(data))
        return data


def group_pieces(pieces):
    """Yield lists of the pieces that follow each other, of GROUP characters or a little more."""
    group, size = [], 0
    for piece in pieces:
        group.append(piece)
        size += len(piece[0])
        if size >= GROUP:
            yield group
            group, size = [], 0
    yield group

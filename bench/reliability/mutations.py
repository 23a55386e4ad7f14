"""Damage to a file's content: what disks, networks and attackers do to it."""

import re

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
VALUES = (
    b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1.5", b"9" * 400, b"1" * 5000,
    b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b'"\\u0000"', b'"../../etc/passwd"',
    b"[" * 3000, b'{"a":' * 3000, b"nan", b"inf", b'"' + b"x" * 3000 + b'"',
)  # fmt: skip
VALUE = re.compile(rb'-?\d[\d.eE+-]*|"(?:[^"\\]|\\.)*"|true|false|null')


def flip(rng, content):
    """Flip a bit."""
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)


def put_byte(rng, content):
    """Put another byte."""
    content[rng.randrange(len(content))] = rng.randrange(256)


def put_number(rng, content):
    """Put a number that limits are made of, in 2, 4 or 8 bytes."""
    size = rng.choice((2, 4, 8))
    number = (rng.choice(NUMBERS) % 256**size).to_bytes(size, "little")
    at = rng.randrange(len(content)) // size * size
    content[at : at + size] = number


def put_value(rng, content):
    """Put another value where JSON or TOML has one."""
    found = list(VALUE.finditer(content[: 1 << 14]))
    if found:
        start, stop = rng.choice(found).span()
        content[start:stop] = rng.choice(VALUES)


def cut(rng, content):
    """Cut the end off."""
    del content[rng.randrange(len(content)) :]


def remove(rng, content):
    """Remove a piece."""
    at = rng.randrange(len(content))
    del content[at : at + rng.randrange(1, 32)]


def repeat(rng, content):
    """Repeat a piece, up to some hundred times."""
    at = rng.randrange(len(content))
    piece = content[at : at + rng.randrange(1, 32)]
    content[at:at] = piece * rng.choice((1, 2, 300))


def insert(rng, content):
    """Insert any bytes."""
    at = rng.randrange(len(content) + 1)
    content[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))


def swap(rng, content):
    """Move the end to the front."""
    at = rng.randrange(len(content))
    content[:] = content[at:] + content[:at]


MUTATIONS = (flip, put_byte, put_number, put_value, cut, remove, repeat, insert, swap)


def mutate(rng, content):
    """Content, bytes, after one to four mutations; rng is a random.Random."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if content:
            rng.choice(MUTATIONS)(rng, content)
    return bytes(content)

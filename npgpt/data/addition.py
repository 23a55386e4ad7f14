"""Sums of two numbers as text, zero-padded: 12+07=019."""

CHARACTERS = "\n+=0123456789"


def sum_text(a, b, digits):
    """The text of a sum: 12+07=019 and a newline, of the same length for all."""
    return f"{a:0{digits}}+{b:0{digits}}={a + b:0{digits + 1}}\n"

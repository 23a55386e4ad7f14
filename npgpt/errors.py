"""What npgpt raises at its boundary: a sentence naming the file or argument, the limit, the value.

A program prints it as `error: ...` and ends with status 2.
"""


class NpgptError(ValueError):
    """The base class of npgpt's errors."""


class ArgumentError(NpgptError):
    """An argument, option or setting that cannot be used."""


class StateError(ArgumentError):
    """A saved state that no run can have: the file that holds it is damaged."""


class FileError(NpgptError):
    """A file that cannot be read, written, fetched or understood."""


class TrainingError(NpgptError):
    """A training run that cannot continue: its loss is NaN or infinite."""

"""Runs are compared bit for bit, also with those of other processes."""

import pytest


@pytest.fixture(autouse=True)
def kernels_are_compiled(compiled):
    """See `compiled`."""

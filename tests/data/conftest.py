"""A database for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fault.fault_server import postgres


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL of Debian's; a test makes tables of names of its own."""
    with postgres() as url:
        yield url

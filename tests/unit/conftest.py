"""A replica for each test that asks for one."""

from collections.abc import AsyncIterator

import pytest

from application import log_writer
from tests.fakes.database import FakeDatabase
from tests.unit.replica import Replica


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
async def replica(database: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A replica at work that asks a silent database again at once."""
    monkeypatch.setattr(log_writer, "RETRY_SECONDS", 0)
    async with Replica(database).at_work() as replica:
        yield replica

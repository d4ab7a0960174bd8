"""Replicas for each test that asks for them."""

from collections.abc import AsyncIterator

import pytest

from application import generation, log_writer, run_engine
from tests.fakes.database import FakeDatabase
from tests.unit.replica import Network, Replica


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a silent database asked again at once."""
    for module in (generation, log_writer, run_engine):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0)
    monkeypatch.setattr(run_engine, "JOIN_RETRY_SECONDS", 0)


@pytest.fixture
async def replica(database: FakeDatabase, network: Network, _patient: None) -> AsyncIterator[Replica]:
    """A replica at work."""
    async with Replica(database, network).at_work() as replica:
        yield replica


@pytest.fixture
async def other(database: FakeDatabase, network: Network, _patient: None) -> AsyncIterator[Replica]:
    """Another one, over the same database and bus."""
    async with Replica(database, network).at_work() as other:
        yield other

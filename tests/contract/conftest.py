"""Both databases that contracts are tried on."""

from collections.abc import AsyncIterator

import pytest

from adapters.postgres.pool import Pool
from tests.stores import Store, empty, fake_store, migrated_pool, postgres_store


@pytest.fixture(scope="session")
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """One migrated database for all contracts."""
    async with migrated_pool(database_url) as opened:
        yield opened


@pytest.fixture
async def in_postgres(pool: Pool) -> Store:
    """PostgreSQL with no rows."""
    await empty(pool)
    return postgres_store(pool)


@pytest.fixture
def in_memory() -> Store:
    """The fakes, with no rows."""
    return fake_store()

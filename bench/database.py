"""What the log of events costs in the database."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

_SIZES = """
    SELECT (SELECT count(*) FROM run_events) AS events,
           pg_total_relation_size('run_events') AS stored,
           pg_current_wal_lsn() - '0/0'::pg_lsn AS wal"""

_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chatback'"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Footprint:
    """How many events there are, the bytes of their table with its index, and those of the WAL ever written."""

    events: int
    stored: int
    wal: int

    def __sub__(self, earlier: "Footprint") -> "Footprint":
        return Footprint(self.events - earlier.events, self.stored - earlier.stored, self.wal - earlier.wal)


def footprint(database_url: str) -> Footprint:
    """Reads the sizes as they are now."""
    return asyncio.run(_on_a_connection(database_url, footprint_on))


async def footprint_on(connection: asyncpg.Connection) -> Footprint:
    """Reads the sizes as they are now, on a connection that is there."""
    row = await connection.fetchrow(_SIZES)
    assert row is not None
    return Footprint(row["events"], row["stored"], int(row["wal"]))


def connections(database_url: str) -> int:
    """Returns how many connections the service holds."""
    held: int = asyncio.run(_on_a_connection(database_url, lambda driver: driver.fetchval(_CONNECTIONS)))
    return held


async def _on_a_connection(database_url: str, ask: Callable[[asyncpg.Connection], Coroutine[Any, Any, T]]) -> T:
    connection = await asyncpg.connect(database_url, timeout=10, command_timeout=30)
    try:
        return await ask(connection)
    finally:
        await connection.close()

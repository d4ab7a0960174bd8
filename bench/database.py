"""What the log of events costs in the database."""

import asyncio
from dataclasses import dataclass

import asyncpg

_SIZES = """
    SELECT (SELECT count(*) FROM run_events) AS events,
           pg_total_relation_size('run_events') AS stored,
           pg_current_wal_lsn() - '0/0'::pg_lsn AS wal"""


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
    return asyncio.run(_read(database_url))


async def _read(database_url: str) -> Footprint:
    connection = await asyncpg.connect(database_url, timeout=10, command_timeout=30)
    try:
        row = await connection.fetchrow(_SIZES)
        assert row is not None
        return Footprint(row["events"], row["stored"], int(row["wal"]))
    finally:
        await connection.close()

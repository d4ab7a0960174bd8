"""The load on the log of events, without a service around it: prints what it takes and costs as JSON.

    python -m bench.log_load DATABASE_URL SECONDS

Every statement holds one event of each of 32 or 200 runs, as the rounds of a busy replica do. A writer has one
statement under way, so that it waits for each commit; several replicas are as many writers.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec
import uvloop
from uuid_utils.compat import uuid7

from adapters.postgres.migrate import migrate
from adapters.postgres.pool import Pool, dsn, open_pool
from adapters.postgres.replica_registry import PostgresReplicaRegistry
from adapters.postgres.run_log import PostgresRunLog
from bench.archive import WORDS, packed
from bench.database import Footprint, footprint_on
from bench.seen import LogSeen
from domain.run import RunEvent, TextDelta

EVENTS_OF_A_RUN = 1_000
WRITERS = 4
TEXTS = [TextDelta(f" {word:19.19}") for word in WORDS]
RENEW_SECONDS = 2.0
_ONE_ROW = "UPDATE replicas SET lease_until = lease_until WHERE replica_id = $1"


def rounds(runs: int) -> Iterator[Sequence[RunEvent]]:
    """Yields batches for ever, each with the next event of every run; runs that are long enough make way for others."""
    workspaces = [uuid7() for _ in range(runs)]
    while True:
        run_ids = [uuid7() for _ in range(runs)]
        for seq in range(2, EVENTS_OF_A_RUN + 2):
            now = datetime.now(UTC)
            yield [
                RunEvent(workspace_id, run_id, seq, 1, now, TEXTS[(seq + place) % len(TEXTS)])
                for place, (workspace_id, run_id) in enumerate(zip(workspaces, run_ids, strict=True))
            ]


async def commits(driver: asyncpg.Connection, replica_id: UUID, seconds: float) -> float:
    """Returns how many statements a second can be committed that write one row, whatever wrote it."""
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        await driver.execute(_ONE_ROW, replica_id)
        count += 1
    return count / spent


async def appends(log: PostgresRunLog, replica_id: UUID, runs: int, seconds: float) -> float:
    """Returns how many events a second one writer gets into the log when each statement has one of every run."""
    spent, count = 0.0, 0
    for batch in rounds(runs):
        began = time.perf_counter()
        if not await log.append(replica_id, batch):
            raise RuntimeError("the replica was fenced: this machine is too slow for this measurement")
        spent, count = spent + time.perf_counter() - began, count + len(batch)
        if spent >= seconds:
            break
    return count / spent


async def renew(replicas: PostgresReplicaRegistry, replica_id: UUID) -> None:
    """Keeps the lease, for ever."""
    while True:
        await replicas.renew(replica_id)
        await asyncio.sleep(RENEW_SECONDS)


async def measure(pool: Pool, driver: asyncpg.Connection, seconds: float) -> LogSeen:
    """Measures one thing after the other, as a replica that has joined."""
    replicas, log, replica_id = PostgresReplicaRegistry(pool), PostgresRunLog(pool), uuid7()
    await replicas.join(replica_id)
    renewing = asyncio.create_task(renew(replicas, replica_id))
    floor = await commits(driver, replica_id, seconds)
    before = await footprint_on(driver)
    at_32 = await appends(log, replica_id, 32, seconds)
    grown = await footprint_on(driver) - before
    at_200 = await appends(log, replica_id, 200, seconds)
    by_four = sum(await asyncio.gather(*(appends(log, replica_id, 32, seconds) for _ in range(WRITERS))))
    share, pack_seconds = await packed(pool, driver, replica_id, random.Random(1))
    renewing.cancel()
    with suppress(asyncio.CancelledError):
        await renewing
    return LogSeen(floor, at_32, at_200, by_four, *beyond_text(grown), share, pack_seconds)


def beyond_text(grown: Footprint) -> tuple[float, float]:
    """Returns stored and WAL bytes of an event without its text, which all have as long."""
    text = len(TEXTS[0].text)
    return grown.stored / grown.events - text, grown.wal / grown.events - text


async def main(database_url: str, seconds: float) -> None:
    """Connects, measures and prints."""
    await migrate(database_url)
    pool = await open_pool(database_url, size=WRITERS + 2, timeout_seconds=30)
    driver = await asyncpg.connect(dsn(database_url), timeout=10, command_timeout=60)
    try:
        print(msgspec.json.encode(await measure(pool, driver, seconds)).decode())
    finally:
        await driver.close()
        await pool.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2])))

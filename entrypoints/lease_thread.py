"""The thread that renews this replica's lease, whatever load is on the main loop."""

import asyncio
from threading import Event

from adapters.postgres.pool import Pool, open_pool
from adapters.postgres.replica_registry import PostgresReplicaRegistry
from application.lease import RETRY_SECONDS, Lease
from domain.errors import DatabaseUnavailable

TIMEOUT_SECONDS = 3.0
"""For one renewal. Two in a row that do not answer cost the lease."""


async def renew_lease(lease: Lease, database_url: str) -> None:
    """Renews in a thread with a loop and a connection of its own, for ever; ends the thread when it is cancelled."""
    stopping = Event()
    try:
        await asyncio.to_thread(_keep, lease, database_url, stopping)
    finally:
        stopping.set()


def _keep(lease: Lease, database_url: str, stopping: Event) -> None:
    pause = 0.0
    with asyncio.Runner() as runner:
        pool = _open(runner, database_url, stopping)
        while pool and not stopping.wait(pause):
            pause = runner.run(lease.renew(PostgresReplicaRegistry(pool)))
        if pool:
            runner.run(pool.close())


def _open(runner: asyncio.Runner, database_url: str, stopping: Event) -> Pool | None:
    while not stopping.is_set():
        try:
            return runner.run(open_pool(database_url, size=1, timeout_seconds=TIMEOUT_SECONDS))
        except DatabaseUnavailable:
            stopping.wait(RETRY_SECONDS)
    return None

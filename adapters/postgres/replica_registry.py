"""Leases of replicas in PostgreSQL, by its clock."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from adapters.postgres.adoption import adopt_orphans
from adapters.postgres.pool import Pool
from application.ports.replica_registry import ReplicaRegistry
from domain.conversation import Message
from domain.run import Run

LEASE = timedelta(seconds=10)

_JOIN = """
    INSERT INTO replicas (replica_id, lease_until) VALUES ($1, clock_timestamp() + $2::interval)
    ON CONFLICT (replica_id) DO UPDATE SET lease_until = excluded.lease_until"""
_RENEW = """
    UPDATE replicas SET lease_until = clock_timestamp() + $2::interval
    WHERE replica_id = $1 AND NOT fenced AND lease_until > clock_timestamp()"""
_LEAVE = """
    WITH gone AS (UPDATE replicas SET fenced = true, retired = true WHERE replica_id = $1 AND NOT fenced)
    SELECT replica_id FROM replicas WHERE replica_id <> $1 AND NOT fenced AND lease_until > clock_timestamp()"""
# Waits, as the next does, for the shared lock of a batch that is being written: a fenced replica has written its last.
_FENCE = "UPDATE replicas SET fenced = true WHERE replica_id = $1 AND NOT fenced"
_FENCE_EXPIRED = "UPDATE replicas SET fenced = true WHERE NOT fenced AND lease_until < clock_timestamp()"
_FORGET = """
    DELETE FROM replicas WHERE fenced AND create_time < $1 AND NOT EXISTS (
        SELECT FROM runs WHERE owner = replica_id AND state = 'RUNNING')"""


class PostgresReplicaRegistry(ReplicaRegistry):
    """The table `replicas`: one row per process, until some time after its end."""

    def __init__(self, pool: Pool, lease: timedelta = LEASE) -> None:
        self._pool = pool
        self._lease = lease

    async def join(self, replica_id: UUID) -> None:
        await self._run(_JOIN, replica_id, self._lease)

    async def renew(self, replica_id: UUID) -> bool:
        return await self._run(_RENEW, replica_id, self._lease) == "UPDATE 1"

    async def leave(self, replica_id: UUID) -> Sequence[UUID]:
        async with self._pool.connection() as connection:
            return [row["replica_id"] for row in await connection.rows(_LEAVE, replica_id)]

    async def fence(self, replica_id: UUID) -> None:
        await self._run(_FENCE, replica_id)

    async def fence_expired(self) -> int:
        return int((await self._run(_FENCE_EXPIRED)).removeprefix("UPDATE "))

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        async with self._pool.transaction() as connection:
            return await adopt_orphans(connection, replica_id, attended, limit)

    async def forget(self, before: datetime) -> None:
        await self._run(_FORGET, before)

    async def _run(self, sql: str, *arguments: object) -> str:
        async with self._pool.connection() as connection:
            return await connection.run(sql, *arguments)

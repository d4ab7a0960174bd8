"""Leases of replicas in PostgreSQL, by its clock."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from adapters.postgres import event_codec
from adapters.postgres.messages import MESSAGE_COLUMNS, message_of
from adapters.postgres.pool import Pool
from adapters.postgres.runs import RUN_COLUMNS, run_of
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
_LEAVE = "UPDATE replicas SET fenced = true WHERE replica_id = $1"
# Waits for the shared lock of a batch that is being written, so that a fenced replica has written its last.
_FENCE_EXPIRED = "UPDATE replicas SET fenced = true WHERE NOT fenced AND lease_until < clock_timestamp()"
_ADOPT = f"""
    WITH orphans AS (
        SELECT r.workspace_id, r.run_id FROM runs r LEFT JOIN replicas o ON o.replica_id = r.owner
        WHERE r.state = 'RUNNING' AND (COALESCE(o.fenced, true) OR (
            r.owner = $1 AND r.owned_since < clock_timestamp() - interval '30 s' AND r.run_id <> ALL($2::uuid[])))
        ORDER BY r.create_time LIMIT $3 FOR NO KEY UPDATE OF r SKIP LOCKED),
    adopted AS (
        UPDATE runs r SET owner = $1, owned_since = clock_timestamp() FROM orphans
        WHERE r.workspace_id = orphans.workspace_id AND r.run_id = orphans.run_id RETURNING r.*)
    SELECT {RUN_COLUMNS} FROM adopted r ORDER BY r.create_time"""
_ANSWERS = f"""
    SELECT {MESSAGE_COLUMNS}, (
        SELECT string_agg(e.payload, '' ORDER BY e.seq) FROM run_events e
        WHERE e.workspace_id = m.workspace_id AND e.run_id = m.run_id AND e.kind = {event_codec.TEXT_DELTA}
        AND e.seq > COALESCE((SELECT max(v.seq) FROM run_events v WHERE v.workspace_id = m.workspace_id
                              AND v.run_id = m.run_id AND v.kind = {event_codec.ATTEMPT_RESET}), 0)) AS logged
    FROM messages m WHERE (workspace_id, message_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))"""


class PostgresReplicaRegistry(ReplicaRegistry):
    """The table `replicas`: one row per process that ever ran."""

    def __init__(self, pool: Pool, lease: timedelta = LEASE) -> None:
        self._pool = pool
        self._lease = lease

    async def join(self, replica_id: UUID) -> None:
        await self._run(_JOIN, replica_id, self._lease)

    async def renew(self, replica_id: UUID) -> bool:
        return await self._run(_RENEW, replica_id, self._lease) == "UPDATE 1"

    async def leave(self, replica_id: UUID) -> None:
        await self._run(_LEAVE, replica_id)

    async def fence_expired(self) -> int:
        return int((await self._run(_FENCE_EXPIRED)).removeprefix("UPDATE "))

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        async with self._pool.connection() as connection:
            runs = [run_of(row) for row in await connection.rows(_ADOPT, replica_id, list(attended), limit)]
            rows = await connection.rows(_ANSWERS, [run.workspace_id for run in runs], [run.message_id for run in runs])
        answers = {row["message_id"]: replace(message_of(row), content=row["logged"] or "") for row in rows}
        return [(run, answers[run.message_id]) for run in runs]

    async def _run(self, sql: str, *arguments: object) -> str:
        async with self._pool.connection() as connection:
            return await connection.run(sql, *arguments)

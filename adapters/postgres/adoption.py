"""How runs come to another owner when theirs is fenced."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from uuid import UUID

from asyncpg import Record

from adapters.postgres import event_codec
from adapters.postgres.connection import Connection
from adapters.postgres.messages import MESSAGE_COLUMNS, message_of
from adapters.postgres.run_log import HELD
from adapters.postgres.runs import RUN_COLUMNS, run_of
from domain.conversation import Message
from domain.errors import ReplicaDraining, ReplicaLost
from domain.run import AttemptReset, Run

_ORPHANS = """
    FROM runs r LEFT JOIN replicas o ON o.replica_id = r.owner
    WHERE r.state = 'RUNNING' AND (COALESCE(o.fenced, true) OR (
        r.owner = $1 AND r.owned_since < clock_timestamp() - interval '10 s' AND r.run_id <> ALL($2::uuid[])))"""
_LOCK = f"SELECT r.run_id {_ORPHANS} ORDER BY r.create_time LIMIT $3 FOR NO KEY UPDATE OF r SKIP LOCKED"
_LOCKED = f"""
    SELECT {RUN_COLUMNS}, COALESCE(o.retired, false) AS retired {_ORPHANS} AND r.run_id = ANY($3::uuid[])
    ORDER BY r.create_time"""
_ADOPT = """
    WITH adopted AS (
        UPDATE runs SET owner = $1, owned_since = clock_timestamp(), attempt = $4, crashes = $5
        WHERE workspace_id = $2 AND run_id = $3)
    INSERT INTO run_events (workspace_id, run_id, seq, attempt, create_time, kind, payload)
    SELECT $2, $3, $6, $4, date_trunc('milliseconds', clock_timestamp()), $7, $8 WHERE $8::text IS NOT NULL"""
_ANSWERS = f"""
    SELECT {MESSAGE_COLUMNS}, (
        SELECT string_agg(e.payload, '' ORDER BY e.seq) FROM run_events e
        WHERE e.workspace_id = m.workspace_id AND e.run_id = m.run_id AND e.kind = {event_codec.TEXT_DELTA}
        AND e.seq > COALESCE((SELECT max(v.seq) FROM run_events v WHERE v.workspace_id = m.workspace_id
                              AND v.run_id = m.run_id AND v.kind = {event_codec.ATTEMPT_RESET}), 0)) AS logged
    FROM messages m WHERE (workspace_id, message_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))"""


async def adopt_orphans(
    connection: Connection, replica_id: UUID, attended: Collection[UUID], limit: int
) -> Sequence[tuple[Run, Message]]:
    """Does what `ReplicaRegistry.adopt_orphans` says within the caller's transaction."""
    if not await connection.rows(HELD, replica_id):
        return []
    mine = replica_id, list(attended)
    locked = [row["run_id"] for row in await connection.rows(_LOCK, *mine, limit)]
    # A second look, now that the rows are locked: a rival may have had some between the first look and the lock.
    adopted = [_adopted(row, replica_id) for row in await connection.rows(_LOCKED, *mine, locked)]
    await connection.run_for_each(_ADOPT, [_changes(run, reset) for run, reset in adopted])
    return await _with_answers(connection, [run for run, _ in adopted])


def _adopted(row: Record, replica_id: UUID) -> tuple[Run, AttemptReset | None]:
    """Returns the run as its new owner has it, and the event that says so; None for one that is given up."""
    run, retired = run_of(row), row["retired"]
    run = replace(run, owner=replica_id, crashes=run.crashes + (not retired))
    if run.given_up():
        return run, None
    reason = ReplicaDraining.reason if retired else ReplicaLost.reason
    return replace(run, attempt=run.attempt + 1, last_seq=run.last_seq + 1), AttemptReset(reason)


def _changes(run: Run, reset: AttemptReset | None) -> Sequence[object]:
    event = event_codec.encode(reset) if reset else (None, None)
    return run.owner, run.workspace_id, run.run_id, run.attempt, run.crashes, run.last_seq, *event


async def _with_answers(connection: Connection, runs: Sequence[Run]) -> Sequence[tuple[Run, Message]]:
    """Adds to each run its message with the text that is in the log since the newest reset."""
    rows = await connection.rows(_ANSWERS, [run.workspace_id for run in runs], [run.message_id for run in runs])
    answers = {row["message_id"]: replace(message_of(row), content=row["logged"] or "") for row in rows}
    return [(run, answers[run.message_id]) for run in runs]

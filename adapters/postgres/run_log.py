"""The log of events in PostgreSQL."""

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import accumulate
from uuid import UUID

from asyncpg import UniqueViolationError

from adapters.postgres import event_codec
from adapters.postgres.messages import MESSAGE_COLUMNS, message_of
from adapters.postgres.packed_codec import StoredEvent
from adapters.postgres.packing import pack_ended, read_packed
from adapters.postgres.pool import Pool
from adapters.postgres.runs import LAST_SEQ
from application.ports.run_log import LogPage, RunLog, Standing, Survey
from domain.conversation import Message
from domain.run import Ending, RunEvent

PAGE_EVENTS = 500
PAGE_BYTES = 64 * 1024

# The row lock is the fence: whoever fences this replica waits for the statement, or the statement sees the fence.
HELD = "SELECT FROM replicas WHERE replica_id = $1 AND NOT fenced AND lease_until > clock_timestamp() FOR SHARE"
# What is the same in all rows is sent once: unnest fills up the shorter columns with nulls.
_PUT = """
    put AS (
        INSERT INTO run_events (workspace_id, run_id, seq, attempt, create_time, kind, payload)
        SELECT workspace_id, run_id, seq, COALESCE(attempt, ($5::int[])[1]),
            COALESCE(create_time, ($6::timestamptz[])[1]), COALESCE(kind, ($7::smallint[])[1]), payload
        FROM unnest($2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::timestamptz[], $7::smallint[], $8::text[])
            AS e (workspace_id, run_id, seq, attempt, create_time, kind, payload), {allowed} {conflict})"""
_NEW = f"WITH held AS MATERIALIZED ({HELD}), {_PUT.format(allowed='held', conflict='')} SELECT count(*) FROM held"
_AGAIN = f"""
    WITH held AS MATERIALIZED ({HELD}), {_PUT.format(allowed="held", conflict="ON CONFLICT DO NOTHING")}
    SELECT count(*) FROM held"""
# An end that is written again, its reply being lost, finds the run ended: by then its log may even be packed.
_FINISH = f"""
    WITH held AS MATERIALIZED ({HELD}),
    running AS MATERIALIZED (
        SELECT FROM runs, held
        WHERE workspace_id = ($2::uuid[])[1] AND run_id = ($3::uuid[])[1] AND state = 'RUNNING'),
    {_PUT.format(allowed="running", conflict="ON CONFLICT DO NOTHING")},
    answered AS (
        UPDATE messages SET content = $10, status = $11, input_tokens = $12, output_tokens = $13
        FROM held WHERE workspace_id = $2[1] AND message_id = $9 AND status = 'STREAMING'),
    ended AS (
        UPDATE runs SET state = $14, attempt = $15, last_seq = $16, input_tokens = $12, output_tokens = $13,
                        failure_reason = $17, failure_message = $18, end_time = $19
        FROM held WHERE workspace_id = $2[1] AND run_id = $3[1] AND state = 'RUNNING')
    SELECT count(*) FROM held"""
_READ = f"""
    SELECT seq, attempt, create_time, kind, payload, found FROM (
        SELECT *, count(*) OVER () AS found, row_number() OVER (ORDER BY seq) AS place,
            sum(octet_length(payload)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) AS bytes
        FROM (SELECT * FROM run_events WHERE workspace_id = $1 AND run_id = $2 AND seq > $3
              ORDER BY seq LIMIT {PAGE_EVENTS + 1}) AS newer) AS measured
    WHERE place = 1 OR (place <= {PAGE_EVENTS} AND bytes <= {PAGE_BYTES}) ORDER BY seq"""
_ANSWER = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages WHERE workspace_id = $1
    AND message_id = (SELECT message_id FROM runs WHERE workspace_id = $1 AND run_id = $2)"""
_SURVEY = f"""
    SELECT r.run_id, r.owner, {LAST_SEQ} AS last_seq
    FROM unnest($2::uuid[], $3::uuid[]) AS watched (workspace_id, run_id) JOIN runs r USING (workspace_id, run_id)
    UNION ALL
    SELECT run_id, owner, NULL FROM runs WHERE owner = $1 AND state = 'RUNNING' AND cancel_requested"""


class PostgresRunLog(RunLog):
    """The table `run_events`, one statement per batch and one per ending, and `packed_events`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def append(self, replica_id: UUID, events: Sequence[RunEvent]) -> bool:
        columns = event_codec.columns(events)
        async with self._pool.connection() as connection:
            try:
                return bool(await connection.value(_NEW, replica_id, *columns))
            except UniqueViolationError:  # so rare that to be ready for it would cost the usual batch too much
                return bool(await connection.value(_AGAIN, replica_id, *columns))

    async def finish(self, replica_id: UUID, ending: Ending) -> bool:
        run, message, failure = ending.run, ending.message, ending.run.failure
        async with self._pool.connection() as connection:
            return bool(
                await connection.value(
                    _FINISH,
                    replica_id,
                    *event_codec.columns(ending.events),
                    message.message_id,
                    message.content,
                    message.status,
                    message.usage.input_tokens,
                    message.usage.output_tokens,
                    run.state,
                    run.attempt,
                    run.last_seq,
                    failure and failure.reason,
                    failure and failure.message,
                    run.end_time,
                )
            )

    async def read(self, workspace_id: UUID, run_id: UUID, after_seq: int) -> LogPage:
        key = workspace_id, run_id
        async with self._pool.connection() as connection:
            rows = await connection.rows(_READ, *key, after_seq)
            events: Sequence[StoredEvent] = [StoredEvent(*row[:5]) for row in rows]
            has_more = bool(rows) and rows[0]["found"] > len(rows)
            if not rows:  # and none when the log is packed: nothing is in both places, whoever packs meanwhile
                packed, has_more = await read_packed(connection, *key, after_seq)
                events = _bounded(packed)
                has_more |= len(events) < len(packed)
            if not events or events[-1].kind != event_codec.COMPLETED:
                return LogPage([_event(*key, event) for event in events], has_more)
            answer = await connection.row(_ANSWER, *key)
            # Without its message the run was erased between both statements.
            return LogPage([_event(*key, event, message_of(answer)) for event in events] if answer else [], False)

    async def survey(self, replica_id: UUID, watched: Collection[tuple[UUID, UUID]]) -> Survey:
        workspaces, runs = [workspace_id for workspace_id, _ in watched], [run_id for _, run_id in watched]
        async with self._pool.connection() as connection:
            rows = await connection.rows(_SURVEY, replica_id, workspaces, runs)
        return Survey(
            [Standing(*row) for row in rows if row["last_seq"] is not None],
            [row["run_id"] for row in rows if row["last_seq"] is None],
        )

    async def pack(self, ended_before: datetime, limit: int) -> int:
        return await pack_ended(self._pool, ended_before, limit)


def _bounded(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """Returns as many of the first events as a page may hold."""
    sizes = accumulate(len(event.payload.encode()) for event in events[:PAGE_EVENTS])
    return events[: max(1, sum(size <= PAGE_BYTES for size in sizes))]


def _event(workspace_id: UUID, run_id: UUID, stored: StoredEvent, answer: Message | None = None) -> RunEvent:
    seq, attempt, create_time, kind, payload = stored
    return RunEvent(workspace_id, run_id, seq, attempt, create_time, event_codec.decode(kind, payload, answer))

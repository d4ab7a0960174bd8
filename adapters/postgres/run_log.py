"""The log of events in PostgreSQL."""

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from adapters.postgres import event_codec
from adapters.postgres.messages import MESSAGE_COLUMNS, message_of
from adapters.postgres.pool import Pool
from application.ports.run_log import RunLog
from domain.conversation import Message
from domain.run import Ending, RunEvent

# The row lock is the fence: whoever fences this replica waits for the statement, or the statement sees the fence.
_HELD = """
    held AS MATERIALIZED (
        SELECT FROM replicas WHERE replica_id = $1 AND NOT fenced AND lease_until > clock_timestamp() FOR SHARE),
    put AS (
        INSERT INTO run_events (workspace_id, run_id, seq, attempt, create_time, kind, payload)
        SELECT e.* FROM unnest($2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::timestamptz[], $7::smallint[],
                               $8::text[]) AS e, held
        ON CONFLICT DO NOTHING)"""
_APPEND = f"WITH {_HELD} SELECT count(*) FROM held"
_FINISH = f"""
    WITH {_HELD},
    answered AS (
        UPDATE messages SET content = $10, status = $11, input_tokens = $12, output_tokens = $13
        FROM held WHERE workspace_id = $2[1] AND message_id = $9 AND status = 'STREAMING'),
    ended AS (
        UPDATE runs SET state = $14, attempt = $15, last_seq = $16, input_tokens = $12, output_tokens = $13,
                        failure_reason = $17, failure_message = $18, end_time = $19
        FROM held WHERE workspace_id = $2[1] AND run_id = $3[1] AND state = 'RUNNING')
    SELECT count(*) FROM held"""
_READ = """
    SELECT seq, attempt, create_time, kind, payload FROM run_events
    WHERE workspace_id = $1 AND run_id = $2 AND seq > $3 ORDER BY seq LIMIT $4"""
_ANSWER = f"""
    SELECT {MESSAGE_COLUMNS} FROM messages WHERE workspace_id = $1
    AND message_id = (SELECT message_id FROM runs WHERE workspace_id = $1 AND run_id = $2)"""


class PostgresRunLog(RunLog):
    """The table `run_events`; one statement per batch, and one per ending."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def append(self, replica_id: UUID, events: Sequence[RunEvent]) -> bool:
        async with self._pool.connection() as connection:
            return bool(await connection.value(_APPEND, replica_id, *_columns(events)))

    async def finish(self, replica_id: UUID, ending: Ending) -> bool:
        run, message, failure = ending.run, ending.message, ending.run.failure
        async with self._pool.connection() as connection:
            return bool(
                await connection.value(
                    _FINISH,
                    replica_id,
                    *_columns(ending.events),
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

    async def read(self, workspace_id: UUID, run_id: UUID, after_seq: int, limit: int) -> Sequence[RunEvent]:
        async with self._pool.connection() as connection:
            rows = await connection.rows(_READ, workspace_id, run_id, after_seq, limit)
            if not rows or rows[-1]["kind"] != event_codec.COMPLETED:
                return _events(workspace_id, run_id, rows, None)
            answer = await connection.row(_ANSWER, workspace_id, run_id)
            # Without its message the run was erased between both statements.
            return _events(workspace_id, run_id, rows, message_of(answer)) if answer else []


def _events(workspace_id: UUID, run_id: UUID, rows: Sequence[Record], answer: Message | None) -> Sequence[RunEvent]:
    return [
        RunEvent(workspace_id, run_id, seq, attempt, create_time, event_codec.decode(kind, payload, answer))
        for seq, attempt, create_time, kind, payload in rows
    ]


def _columns(events: Sequence[RunEvent]) -> tuple[list[object], ...]:
    """Returns the events as one list per column."""
    bodies = [event_codec.encode(event.body) for event in events]
    return (
        [event.workspace_id for event in events],
        [event.run_id for event in events],
        [event.seq for event in events],
        [event.attempt for event in events],
        [event.create_time for event in events],
        [kind for kind, _ in bodies],
        [text for _, text in bodies],
    )

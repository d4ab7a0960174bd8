"""Runs in PostgreSQL."""

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from adapters.postgres import event_codec
from adapters.postgres.connection import Connection
from application.ports.repositories import Runs
from domain.conversation import Usage
from domain.errors import RunNotFound
from domain.identity import Caller
from domain.run import Failed, Run, RunEvent, RunState, SendOptions

# The newest seq of a running run is only in its log: writing it here too would cost a row for every batch.
LAST_SEQ = """
    COALESCE(r.last_seq, (SELECT max(e.seq) FROM run_events e
                          WHERE e.workspace_id = r.workspace_id AND e.run_id = r.run_id))"""
RUN_COLUMNS = f"""
    r.run_id, r.workspace_id, r.user_id, r.conversation_id, r.message_id, r.model, r.options, r.create_time, r.owner,
    r.state, r.attempt, r.cancel_requested, r.input_tokens, r.output_tokens, r.failure_reason, r.failure_message,
    r.end_time, r.crashes, {LAST_SEQ} AS last_seq"""

_ADD = """
    WITH run AS (
        INSERT INTO runs (workspace_id, user_id, conversation_id, message_id, run_id, owner, create_time, attempt,
                          state, model, options)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11))
    INSERT INTO run_events (workspace_id, run_id, seq, attempt, create_time, kind, payload)
    VALUES ($1, $5, $12, $8, $13, $14, $15)"""
_RUNNING_IN = f"""
    SELECT {RUN_COLUMNS} FROM runs r
    WHERE r.workspace_id = $1 AND r.user_id = $2 AND r.conversation_id = $3 AND r.state = 'RUNNING'
    ORDER BY r.create_time"""
_OWNED = "r.workspace_id = $1 AND r.user_id = $2 AND r.run_id = $3"
_VISIBLE = """EXISTS (SELECT FROM conversations c WHERE c.workspace_id = r.workspace_id
              AND c.conversation_id = r.conversation_id AND c.delete_time IS NULL)"""


class PostgresRuns(Runs):
    """The table `runs`, with event 1 of each in `run_events`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, run: Run, started: RunEvent) -> None:
        kind, payload = event_codec.encode(started.body)
        await self._connection.run(
            _ADD,
            run.workspace_id,
            run.user_id,
            run.conversation_id,
            run.message_id,
            run.run_id,
            run.owner,
            run.create_time,
            run.attempt,
            run.state,
            run.model,
            run.options,
            started.seq,
            started.create_time,
            kind,
            payload,
        )

    async def get(self, run_id: UUID, owner: Caller) -> Run:
        return await self._find(f"{_OWNED} AND {_VISIBLE}", owner, run_id)

    async def request_cancel(self, run_id: UUID, owner: Caller) -> Run:
        await self._connection.run(
            f"UPDATE runs r SET cancel_requested = true WHERE {_OWNED} AND state = 'RUNNING' AND NOT cancel_requested",
            owner.workspace_id,
            owner.user_id,
            run_id,
        )
        return await self._find(_OWNED, owner, run_id)

    async def running_in(self, conversation_id: UUID, owner: Caller) -> Sequence[Run]:
        rows = await self._connection.rows(_RUNNING_IN, owner.workspace_id, owner.user_id, conversation_id)
        return [run_of(row) for row in rows]

    async def _find(self, condition: str, owner: Caller, run_id: UUID) -> Run:
        row = await self._connection.row(
            f"SELECT {RUN_COLUMNS} FROM runs r WHERE {condition}", owner.workspace_id, owner.user_id, run_id
        )
        if row is None:
            raise RunNotFound
        return run_of(row)


def run_of(row: Record) -> Run:
    """Returns the run in a row that has `RUN_COLUMNS`."""
    failed = row["failure_reason"] is not None
    return Run(
        row["run_id"],
        row["workspace_id"],
        row["user_id"],
        row["conversation_id"],
        row["message_id"],
        row["model"],
        SendOptions(**row["options"]),
        row["create_time"],
        row["owner"],
        RunState(row["state"]),
        row["attempt"],
        row["last_seq"],
        row["cancel_requested"],
        Usage(row["input_tokens"], row["output_tokens"]),
        Failed(row["failure_reason"], row["failure_message"]) if failed else None,
        row["end_time"],
        row["crashes"],
    )

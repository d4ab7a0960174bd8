"""What is in the database and what the API says of it, once all is at rest."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import asyncpg

from adapters.postgres import event_codec
from chatback.v1.conversation_service_pb2 import ListMessagesRequest
from tests.e2e.caller import Client
from tests.faults.validators import Logged, Stored

REST_SECONDS = 60
KINDS = {
    event_codec.STARTED: "started",
    event_codec.TEXT_DELTA: "text_delta",
    event_codec.ATTEMPT_RESET: "attempt_reset",
    event_codec.COMPLETED: "completed",
    event_codec.FAILED: "failed",
    event_codec.CANCELLED: "cancelled",
}
_RUNS = """
    SELECT r.run_id, r.conversation_id, r.message_id, r.state, r.last_seq, r.attempt, m.status, m.content
    FROM runs r JOIN messages m USING (workspace_id, message_id) WHERE r.user_id = $1"""
_LOG = """
    SELECT e.run_id, e.seq, e.attempt, e.kind, e.payload FROM run_events e JOIN runs r USING (workspace_id, run_id)
    WHERE r.user_id = $1 ORDER BY e.run_id, e.seq"""
_RUNNING = "SELECT array_agg(run_id::text || ' at ' || owner::text) FROM runs WHERE user_id = $1 AND state = 'RUNNING'"
_QUESTIONS = """
    SELECT m.content, count(*) FROM messages m JOIN conversations c USING (workspace_id, conversation_id)
    WHERE c.user_id = $1 AND m.role = 'USER' GROUP BY m.content"""


async def come_to_rest(connection: asyncpg.Connection, user_id: str) -> None:
    """Waits until no run of the user's is running."""
    user, running = UUID(user_id), None
    try:
        async with asyncio.timeout(REST_SECONDS):
            while running := await connection.fetchval(_RUNNING, user):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"runs are stuck: {running}") from None


async def stored_runs(connection: asyncpg.Connection, user_id: str, caller: Client) -> dict[str, Stored]:
    """Returns all runs of a user by their ids."""
    logs: dict[UUID, list[Logged]] = defaultdict(list)
    for row in await connection.fetch(_LOG, UUID(user_id)):
        text = row["payload"] if row["kind"] == event_codec.TEXT_DELTA else ""
        logs[row["run_id"]].append(Logged(row["seq"], row["attempt"], KINDS[row["kind"]], text))
    rows = await connection.fetch(_RUNS, UUID(user_id))
    listed = await _listed(caller, {str(row["conversation_id"]) for row in rows})
    return {
        str(row["run_id"]): Stored(
            row["state"],
            row["last_seq"] or 0,
            row["attempt"],
            row["status"],
            row["content"],
            listed.get(str(row["message_id"]), "(not listed)"),
            logs[row["run_id"]],
        )
        for row in rows
    }


async def asked_more_than_once(connection: asyncpg.Connection, user_id: str) -> Sequence[str]:
    """Returns the questions of a user that are stored more often than once."""
    rows = await connection.fetch(_QUESTIONS, UUID(user_id))
    return [f"{row['content']!r} is stored {row['count']} times" for row in rows if row["count"] > 1]


async def _listed(caller: Client, conversation_ids: set[str]) -> dict[str, str]:
    """Returns the contents of all messages by their ids, as the API lists them."""
    requests = [ListMessagesRequest(conversation_id=each, page_size=100) for each in conversation_ids]
    pages = await asyncio.gather(*(caller.conversations.ListMessages(request) for request in requests))
    return {message.message_id: message.content for page in pages for message in page.messages}

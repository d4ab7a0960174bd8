"""Logs of ended runs, moved out of `run_events` into far fewer bytes.

A row holds up to a thousand events, so that a page of a long log costs no more than one of a short log.
"""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from asyncpg import Record

from adapters.postgres.connection import Connection
from adapters.postgres.packed_codec import StoredEvent, pack, unpack

_EVENTS = 1000

# The lock on the conversation keeps erasure and packing of one run apart.
_NEXT = """
    SELECT r.workspace_id, r.run_id, r.attempt, r.last_seq, m.content FROM runs r
    JOIN conversations c USING (workspace_id, conversation_id)
    JOIN messages m ON m.workspace_id = r.workspace_id AND m.message_id = r.message_id
    WHERE r.end_time < $1 AND NOT r.packed AND c.delete_time IS NULL
    ORDER BY r.end_time LIMIT 1 FOR NO KEY UPDATE OF r SKIP LOCKED FOR KEY SHARE OF c SKIP LOCKED"""
_TAKE = """
    DELETE FROM run_events WHERE workspace_id = $1 AND run_id = $2 AND seq BETWEEN $3 AND $4
    RETURNING seq, attempt, create_time, kind, payload"""
_PUT = """
    INSERT INTO packed_events (workspace_id, run_id, seq, text_offset, text_length, packed)
    VALUES ($1, $2, $3, $4, $5, $6)"""
_MARK = "UPDATE runs SET packed = true WHERE workspace_id = $1 AND run_id = $2"
_READ = """
    SELECT p.packed, substr(m.content, p.text_offset + 1, p.text_length) AS text, p.seq < r.last_seq AS has_more
    FROM packed_events p JOIN runs r USING (workspace_id, run_id)
    JOIN messages m ON m.workspace_id = r.workspace_id AND m.message_id = r.message_id
    WHERE p.workspace_id = $1 AND p.run_id = $2 AND p.seq > $3 ORDER BY p.seq LIMIT 1"""


async def pack_next(connection: Connection, ended_before: datetime) -> bool:
    """Packs the run that ended first of those not yet packed; False where none ended before the moment."""
    run = await connection.row(_NEXT, ended_before)
    if run is None:
        return False
    key, text_offset = (run["workspace_id"], run["run_id"]), 0
    for first in range(1, run["last_seq"] + 1, _EVENTS):
        rows = await connection.rows(_TAKE, *key, first, first + _EVENTS - 1)
        events = sorted((StoredEvent(*row) for row in rows), key=attrgetter("seq"))
        if events:
            text_length, packed = _packed(events, run, text_offset)
            await connection.run(_PUT, *key, events[-1].seq, text_offset, text_length, packed)
            text_offset += text_length
    await connection.run(_MARK, *key)
    return True


async def read_packed(
    connection: Connection, workspace_id: UUID, run_id: UUID, after_seq: int
) -> tuple[Sequence[StoredEvent], bool]:
    """Returns some of the run's packed events with seq > after_seq, in order, and whether there are more."""
    row = await connection.row(_READ, workspace_id, run_id, after_seq)
    if row is None:
        return [], False
    return [event for event in unpack(row["packed"], row["text"]) if event.seq > after_seq], row["has_more"]


def _packed(events: Sequence[StoredEvent], run: Record, text_offset: int) -> tuple[int, bytes]:
    """Returns how much of the message's text the events share, from the offset on, and the events without it."""
    text = "".join(event.payload for event in events if event.is_text_of(run["attempt"]))
    if run["content"].startswith(text, text_offset):
        return len(text), pack(events, attempt_without_text=run["attempt"])
    return 0, pack(events, attempt_without_text=0)

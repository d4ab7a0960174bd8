"""Logs of ended runs, moved out of `run_events` into far fewer bytes.

A row holds up to 2,000 events, so that a page of a long log costs no more than one of a short log.
"""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from asyncpg import Record

from adapters.postgres import event_codec
from adapters.postgres.connection import Connection
from adapters.postgres.packed_codec import StoredEvent, pack, unpack
from adapters.postgres.pool import Pool
from domain.run import Started

_EVENTS = 2000

# What the first event says.
_OF_STARTED = "r.conversation_id, m.parent_message_id, r.message_id, r.model"
_CANDIDATES = """
    SELECT workspace_id, run_id FROM runs WHERE end_time < $1 AND NOT packed ORDER BY end_time LIMIT $2"""
# The lock on the conversation keeps the packing of a run and its erasure apart.
_LOCK = f"""
    SELECT r.attempt, r.last_seq, m.content, {_OF_STARTED} FROM runs r
    JOIN conversations c USING (workspace_id, conversation_id)
    JOIN messages m ON m.workspace_id = r.workspace_id AND m.message_id = r.message_id
    WHERE r.workspace_id = $1 AND r.run_id = $2 AND NOT r.packed
    FOR NO KEY UPDATE OF r SKIP LOCKED FOR KEY SHARE OF c SKIP LOCKED"""
_TAKE = """
    DELETE FROM run_events WHERE workspace_id = $1 AND run_id = $2 AND seq BETWEEN $3 AND $4
    RETURNING seq, attempt, create_time, kind, payload"""
_PUT = """
    INSERT INTO packed_events (workspace_id, run_id, seq, text_offset, text_length, packed)
    VALUES ($1, $2, $3, $4, $5, $6)"""
_MARK = "UPDATE runs SET packed = true WHERE workspace_id = $1 AND run_id = $2"
# By bytes, which are the same in every database: where the encoding is SQL_ASCII, a character is a byte.
_READ = f"""
    SELECT p.packed, substr(convert_to(m.content, 'SQL_ASCII'), p.text_offset + 1, p.text_length) AS text,
        p.seq < r.last_seq AS has_more, {_OF_STARTED}
    FROM packed_events p JOIN runs r USING (workspace_id, run_id)
    JOIN messages m ON m.workspace_id = r.workspace_id AND m.message_id = r.message_id
    WHERE p.workspace_id = $1 AND p.run_id = $2 AND p.seq > $3 ORDER BY p.seq LIMIT 1"""


async def pack_ended(pool: Pool, ended_before: datetime, limit: int) -> int:
    """Packs up to `limit` runs that ended before the moment, each in a transaction of its own; returns how many."""
    async with pool.connection() as connection:
        candidates = await connection.rows(_CANDIDATES, ended_before, limit)
    packed = 0
    for workspace_id, run_id in candidates:
        async with pool.transaction() as connection:
            packed += await _pack(connection, workspace_id, run_id)
    return packed


async def read_packed(
    connection: Connection, workspace_id: UUID, run_id: UUID, after_seq: int
) -> tuple[Sequence[StoredEvent], bool]:
    """Returns some of the run's packed events with seq > after_seq, in order, and whether there are more."""
    row = await connection.row(_READ, workspace_id, run_id, after_seq)
    if row is None:
        return [], False
    events = _replaced(unpack(row["packed"], row["text"].decode()), "", by=_started(row))
    return [event for event in events if event.seq > after_seq], row["has_more"]


async def _pack(connection: Connection, *key: UUID) -> bool:
    """Moves the events of the run with this key; False if somebody else is at it, or was."""
    run, text_offset = await connection.row(_LOCK, *key), 0
    if run is None:
        return False
    for first in range(1, run["last_seq"] + 1, _EVENTS):
        rows = await connection.rows(_TAKE, *key, first, first + _EVENTS - 1)
        events = sorted((StoredEvent(*row) for row in rows), key=attrgetter("seq"))
        if events:
            text_length, packed = _packed(events, run, text_offset)
            await connection.run(_PUT, *key, events[-1].seq, text_offset, text_length, packed)
            text_offset += text_length
    await connection.run(_MARK, *key)
    return True


def _packed(events: Sequence[StoredEvent], run: Record, text_offset: int) -> tuple[int, bytes]:
    """Returns how many bytes of the message's text the events share, from the offset on, and the events without them.

    What the first event says is left out, too, where the rows of run and message say the same.
    """
    events = _replaced(events, _started(run), by="")
    text = "".join(event.payload for event in events if event.is_text_of(run["attempt"])).encode()
    if run["content"].encode().startswith(text, text_offset):
        return len(text), pack(events, attempt_without_text=run["attempt"])
    return 0, pack(events, attempt_without_text=0)


def _started(row: Record) -> str:
    """Returns the payload of the first event of a run whose row has the columns of it."""
    _, payload = event_codec.encode(
        Started(row["conversation_id"], row["parent_message_id"], row["message_id"], row["model"])
    )
    return payload


def _replaced(events: Sequence[StoredEvent], payload: str, *, by: str) -> Sequence[StoredEvent]:
    """Returns the events with another payload of the first event of a run, where it is this one."""
    first = events[:1]
    if first and first[0].kind == event_codec.STARTED and first[0].payload == payload:
        return [first[0]._replace(payload=by), *events[1:]]
    return events

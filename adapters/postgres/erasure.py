"""Erases what hidden conversations leave behind, a bounded amount at a time."""

from adapters.postgres.connection import Connection

_CONVERSATIONS = 10
_EVENTS = 20_000

_HIDDEN = """
    SELECT workspace_id, conversation_id FROM conversations c
    WHERE delete_time IS NOT NULL AND NOT EXISTS (
        SELECT FROM runs r WHERE r.workspace_id = c.workspace_id AND r.conversation_id = c.conversation_id
        AND r.state = 'RUNNING')
    ORDER BY delete_time LIMIT $1 FOR UPDATE SKIP LOCKED"""
_THEIR_MESSAGES = """
    unnest($1::uuid[], $2::uuid[]) AS hidden (workspace_id, conversation_id)
    JOIN messages m USING (workspace_id, conversation_id)"""
_ERASE_EVENTS = f"""
    DELETE FROM run_events WHERE (workspace_id, run_id, seq) IN (
        SELECT e.workspace_id, e.run_id, e.seq FROM {_THEIR_MESSAGES} JOIN run_events e USING (workspace_id, run_id)
        LIMIT $3)"""
_THEIR_RUNS = f"(workspace_id, run_id) IN (SELECT workspace_id, m.run_id FROM {_THEIR_MESSAGES})"
_ERASE_THE_REST = (
    f"DELETE FROM packed_events WHERE {_THEIR_RUNS}",
    f"DELETE FROM runs WHERE {_THEIR_RUNS}",
    "DELETE FROM messages WHERE (workspace_id, conversation_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))",
    "DELETE FROM conversations WHERE (workspace_id, conversation_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))",
)


async def erase_hidden(connection: Connection) -> int:
    """Erases up to 10 conversations within the caller's transaction and returns how many.

    Those with more events than one transaction should hold lose some now, and the rest at later calls.
    """
    hidden = await connection.rows(_HIDDEN, _CONVERSATIONS)
    keys = [row["workspace_id"] for row in hidden], [row["conversation_id"] for row in hidden]
    if await connection.run(_ERASE_EVENTS, *keys, _EVENTS) == f"DELETE {_EVENTS}":
        return 0
    for statement in _ERASE_THE_REST:
        await connection.run(statement, *keys)
    return len(hidden)

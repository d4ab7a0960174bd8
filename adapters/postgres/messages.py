"""The tree of messages in PostgreSQL."""

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from adapters.postgres.connection import Connection
from application.ports.repositories import Messages
from domain.conversation import Message, MessageRole, MessageStatus, PageRequest, Usage
from domain.errors import MessageNotFound

MESSAGE_COLUMNS = (
    "message_id, conversation_id, parent_message_id, depth, role, content, status, create_time,"
    " input_tokens, output_tokens, model, run_id"
)

_ADD = f"""
    INSERT INTO messages (workspace_id, {MESSAGE_COLUMNS})
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"""
_NEWEST_FIRST = f"""
    WITH RECURSIVE branch AS (
        SELECT *, octet_length(content)::bigint AS bytes FROM messages WHERE workspace_id = $1 AND message_id = $2
        UNION ALL
        SELECT m.*, b.bytes + octet_length(m.content) FROM branch b
        JOIN messages m ON m.workspace_id = $1 AND m.message_id = b.parent_message_id WHERE b.bytes <= $3)
    SELECT {MESSAGE_COLUMNS} FROM branch ORDER BY depth DESC"""
_BRANCH = f"""
    WITH RECURSIVE branch AS (
        SELECT message_id, parent_message_id, depth FROM messages
        WHERE workspace_id = $1 AND message_id = $2 AND depth > $3
        UNION ALL
        SELECT m.message_id, m.parent_message_id, m.depth FROM branch b
        JOIN messages m ON m.workspace_id = $1 AND m.message_id = b.parent_message_id AND m.depth > $3),
    page AS (SELECT message_id FROM branch ORDER BY depth LIMIT $4)
    SELECT {MESSAGE_COLUMNS} FROM messages JOIN page USING (message_id) WHERE workspace_id = $1 ORDER BY depth"""


class PostgresMessages(Messages):
    """The table `messages`; a branch is walked from its leaf along the parents."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, workspace_id: UUID, *messages: Message) -> None:
        await self._connection.run_for_each(
            _ADD,
            [
                (
                    workspace_id,
                    m.message_id,
                    m.conversation_id,
                    m.parent_message_id,
                    m.depth,
                    m.role,
                    m.content,
                    m.status,
                    m.create_time,
                    m.usage.input_tokens,
                    m.usage.output_tokens,
                    m.model,
                    m.run_id,
                )
                for m in messages
            ],
        )

    async def get(self, workspace_id: UUID, conversation_id: UUID, message_id: UUID) -> Message:
        row = await self._connection.row(
            f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE workspace_id = $1 AND conversation_id = $2"
            " AND message_id = $3",
            workspace_id,
            conversation_id,
            message_id,
        )
        if row is None:
            raise MessageNotFound
        return message_of(row)

    async def newest_first(self, workspace_id: UUID, leaf: UUID, max_bytes: int) -> Sequence[Message]:
        return [message_of(row) for row in await self._connection.rows(_NEWEST_FIRST, workspace_id, leaf, max_bytes)]

    async def branch(self, workspace_id: UUID, leaf: UUID, page: PageRequest) -> Sequence[Message]:
        last_depth = int(page.after[0]) if page.after else 0
        return [
            message_of(row) for row in await self._connection.rows(_BRANCH, workspace_id, leaf, last_depth, page.size)
        ]


def message_of(row: Record) -> Message:
    """Returns the message in a row that has `MESSAGE_COLUMNS`."""
    return Message(
        row["message_id"],
        row["conversation_id"],
        row["parent_message_id"],
        row["depth"],
        MessageRole(row["role"]),
        row["content"],
        MessageStatus(row["status"]),
        row["create_time"],
        Usage(row["input_tokens"], row["output_tokens"]),
        row["model"],
        row["run_id"],
    )

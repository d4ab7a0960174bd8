"""The tree of messages in PostgreSQL."""

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from adapters.postgres.connection import Connection
from application.ports.repositories import Messages
from domain.conversation import Message, MessagePage, MessageRole, MessageStatus, PageRequest, Usage
from domain.errors import MessageNotFound
from domain.identity import Caller

MESSAGE_COLUMNS = (
    "message_id, conversation_id, parent_message_id, depth, role, content, status, create_time,"
    " input_tokens, output_tokens, model, run_id"
)

_FOUND = ", ".join(f"m.{column}" for column in MESSAGE_COLUMNS.split(", "))

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
# A page is chosen by ids and lengths, which are known without reading a long text; `listed` tells whether more follow.
# OFFSET 0 keeps the planner from joining all messages of the workspace: each one shown is fetched by its key.
_PAGE = f"""
    page AS (
        SELECT message_id, row_number() OVER place AS number, sum(bytes) OVER place AS bytes, count(*) OVER () AS listed
        FROM (SELECT message_id, depth, bytes FROM chosen ORDER BY depth, message_id LIMIT $4 + 1) AS first
        WINDOW place AS (ORDER BY depth, message_id))
    SELECT {_FOUND}, listed FROM page, LATERAL (
        SELECT * FROM messages m WHERE m.workspace_id = $1 AND m.message_id = page.message_id OFFSET 0) AS m
    WHERE number = 1 OR number <= $4 AND bytes <= $5 ORDER BY number"""
_BRANCH = f"""
    WITH RECURSIVE chosen AS (
        SELECT message_id, parent_message_id, depth, octet_length(content) AS bytes FROM messages
        WHERE workspace_id = $1 AND message_id = $2 AND depth > $3
        UNION ALL
        SELECT m.message_id, m.parent_message_id, m.depth, octet_length(m.content) FROM chosen c
        JOIN messages m ON m.workspace_id = $1 AND m.message_id = c.parent_message_id AND m.depth > $3),
    {_PAGE}"""
_TREE = f"""
    WITH chosen AS (
        SELECT message_id, depth, octet_length(content) AS bytes FROM messages
        WHERE workspace_id = $1 AND conversation_id = $2 AND (depth, message_id) > ($3, $6)),
    {_PAGE}"""
_FIND = f"""
    SELECT {_FOUND} FROM messages m
    JOIN conversations c ON c.workspace_id = m.workspace_id AND c.conversation_id = m.conversation_id
    WHERE m.workspace_id = $1 AND m.message_id = $2 AND c.user_id = $3 AND c.delete_time IS NULL"""


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

    async def find(self, message_id: UUID, owner: Caller) -> Message:
        row = await self._connection.row(_FIND, owner.workspace_id, message_id, owner.user_id)
        if row is None:
            raise MessageNotFound
        return message_of(row)

    async def newest_first(self, workspace_id: UUID, leaf: UUID, max_bytes: int) -> Sequence[Message]:
        return [message_of(row) for row in await self._connection.rows(_NEWEST_FIRST, workspace_id, leaf, max_bytes)]

    async def branch(self, workspace_id: UUID, leaf: UUID, page: PageRequest, max_bytes: int) -> MessagePage:
        last_depth = int(page.after[0]) if page.after else 0
        return _page(await self._connection.rows(_BRANCH, workspace_id, leaf, last_depth, page.size, max_bytes))

    async def tree(self, workspace_id: UUID, conversation_id: UUID, page: PageRequest, max_bytes: int) -> MessagePage:
        depth, last = (int(page.after[0]), UUID(page.after[1])) if page.after else (0, UUID(int=0))
        return _page(
            await self._connection.rows(_TREE, workspace_id, conversation_id, depth, page.size, max_bytes, last)
        )


def _page(rows: Sequence[Record]) -> MessagePage:
    return MessagePage([message_of(row) for row in rows], has_more=bool(rows) and rows[0]["listed"] > len(rows))


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

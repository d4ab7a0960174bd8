"""Conversations in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from adapters.postgres.connection import Connection
from adapters.postgres.erasure import erase_hidden
from application.ports.repositories import Conversations
from domain.conversation import Conversation, PageRequest
from domain.errors import ConversationNotFound
from domain.identity import Caller

_COLUMNS = "conversation_id, workspace_id, user_id, title, metadata, leaf_message_id, create_time, update_time"
_OWNED = "workspace_id = $1 AND user_id = $2 AND delete_time IS NULL"


class PostgresConversations(Conversations):
    """The table `conversations`; a set `delete_time` hides a row from its owner."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, conversation: Conversation) -> None:
        await self._connection.run(
            f"INSERT INTO conversations ({_COLUMNS}, title_folded) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            conversation.conversation_id,
            conversation.workspace_id,
            conversation.user_id,
            conversation.title,
            dict(conversation.metadata),
            conversation.leaf_message_id,
            conversation.create_time,
            conversation.update_time,
            conversation.title.casefold(),
        )

    async def get(self, conversation_id: UUID, owner: Caller) -> Conversation:
        return await self._find(conversation_id, owner)

    async def lock(self, conversation_id: UUID, owner: Caller) -> Conversation:
        return await self._find(conversation_id, owner, "FOR NO KEY UPDATE")

    async def save(self, conversation: Conversation) -> None:
        await self._connection.run(
            "UPDATE conversations SET title = $3, title_folded = $4, metadata = $5, leaf_message_id = $6,"
            " update_time = $7 WHERE workspace_id = $1 AND conversation_id = $2",
            conversation.workspace_id,
            conversation.conversation_id,
            conversation.title,
            conversation.title.casefold(),
            dict(conversation.metadata),
            conversation.leaf_message_id,
            conversation.update_time,
        )

    async def list(self, owner: Caller, query: str, page: PageRequest) -> Sequence[Conversation]:
        moment, last = page.after or (None, None)
        rows = await self._connection.rows(
            f"SELECT {_COLUMNS} FROM conversations WHERE {_OWNED} AND strpos(title_folded, $3) > 0"
            " AND (update_time, conversation_id) < (COALESCE($4, 'infinity'::timestamptz),"
            " COALESCE($5, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))"
            " ORDER BY update_time DESC, conversation_id DESC LIMIT $6",
            owner.workspace_id,
            owner.user_id,
            query.casefold(),
            moment and datetime.fromisoformat(moment),
            last,
            page.size,
        )
        return [_conversation(row) for row in rows]

    async def hide(self, conversation_id: UUID, owner: Caller, now: datetime) -> None:
        tag = await self._connection.run(
            f"UPDATE conversations SET delete_time = $4 WHERE {_OWNED} AND conversation_id = $3",
            owner.workspace_id,
            owner.user_id,
            conversation_id,
            now,
        )
        if tag == "UPDATE 0":
            raise ConversationNotFound

    async def erase_hidden(self) -> int:
        return await erase_hidden(self._connection)

    async def _find(self, conversation_id: UUID, owner: Caller, lock: str = "") -> Conversation:
        row = await self._connection.row(
            f"SELECT {_COLUMNS} FROM conversations WHERE {_OWNED} AND conversation_id = $3 {lock}",
            owner.workspace_id,
            owner.user_id,
            conversation_id,
        )
        if row is None:
            raise ConversationNotFound
        return _conversation(row)


def _conversation(row: Record) -> Conversation:
    return Conversation(**row)

"""Sign-ins in PostgreSQL, and the revocations that every replica reads."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from adapters.postgres.connection import Connection
from application.ports.repositories import Sessions
from domain.identity import Session

_COLUMNS = "session_id, workspace_id, user_id, salt, generation, rotate_time, expire_time, end_time"


class PostgresSessions(Sessions):
    """The tables `sessions` and `revocations`; one statement ends a session and writes its revocation."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, session: Session) -> None:
        await self._connection.run(
            f"INSERT INTO sessions ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            session.session_id,
            session.workspace_id,
            session.user_id,
            session.salt,
            session.generation,
            session.rotate_time,
            session.expire_time,
            session.end_time,
        )

    async def lock(self, session_id: UUID) -> Session | None:
        row = await self._connection.row(
            f"SELECT {_COLUMNS} FROM sessions WHERE session_id = $1 FOR NO KEY UPDATE", session_id
        )
        return None if row is None else Session(**row)

    async def save(self, session: Session) -> None:
        await self._connection.run(
            "UPDATE sessions SET generation = $2, rotate_time = $3, expire_time = $4 WHERE session_id = $1",
            session.session_id,
            session.generation,
            session.rotate_time,
            session.expire_time,
        )

    async def end(self, session_id: UUID, now: datetime) -> None:
        await self._connection.run(_end("session_id = $2"), now, session_id)

    async def end_others(self, user_id: UUID, kept: UUID, now: datetime) -> Sequence[UUID]:
        rows = await self._connection.rows(_end("user_id = $2 AND session_id <> $3"), now, user_id, kept)
        return [row["session_id"] for row in rows]

    async def ended_since(self, moment: datetime) -> Sequence[UUID]:
        rows = await self._connection.rows("SELECT session_id FROM revocations WHERE create_time > $1", moment)
        return [row["session_id"] for row in rows]


def _end(which: str) -> str:
    return (
        f"WITH ended AS (UPDATE sessions SET end_time = $1 WHERE {which} AND end_time IS NULL RETURNING session_id)"
        " INSERT INTO revocations (session_id, create_time) SELECT session_id, $1 FROM ended RETURNING session_id"
    )

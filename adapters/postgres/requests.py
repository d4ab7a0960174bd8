"""Idempotency records in PostgreSQL."""

from datetime import datetime
from uuid import UUID

from adapters.postgres.connection import Connection
from application.ports.repositories import Requests
from domain.errors import RequestIdReused
from domain.identity import Caller

# Insertion waits for a rival's transaction. A record past its day is overwritten; a younger one is locked, not changed.
_CLAIM = """
    INSERT INTO requests AS kept (workspace_id, user_id, request_id, digest, resource_id, create_time)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (workspace_id, user_id, request_id) DO UPDATE
    SET digest = excluded.digest, resource_id = excluded.resource_id, create_time = excluded.create_time
    WHERE kept.create_time < excluded.create_time - interval '24 hours'
    RETURNING true"""


class PostgresRequests(Requests):
    """The table `requests`; the primary key decides between rivals."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def claim(
        self, caller: Caller, request_id: str, digest: bytes, resource_id: UUID, now: datetime
    ) -> UUID | None:
        if await self._connection.value(
            _CLAIM, caller.workspace_id, caller.user_id, request_id, digest, resource_id, now
        ):
            return None
        row = await self._connection.row(
            "SELECT digest, resource_id FROM requests WHERE workspace_id = $1 AND user_id = $2 AND request_id = $3",
            caller.workspace_id,
            caller.user_id,
            request_id,
        )
        if row is None or row["digest"] != digest:
            raise RequestIdReused
        claimed: UUID = row["resource_id"]
        return claimed

    async def forget_before(self, moment: datetime) -> None:
        await self._connection.run("DELETE FROM requests WHERE create_time < $1", moment)

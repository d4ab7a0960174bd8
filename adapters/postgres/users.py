"""Users in PostgreSQL."""

from uuid import UUID

from asyncpg import Record

from adapters.postgres.connection import Connection
from application.ports.repositories import Users
from domain.errors import UserNotFound
from domain.identity import Role, User

_COLUMNS = "user_id, workspace_id, email, display_name, role, create_time"


class PostgresUsers(Users):
    """The table `users`; e-mail is unique by the constraint `users_email_key`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, user: User, password_hash: str) -> None:
        await self._connection.run(
            "INSERT INTO workspaces (workspace_id, create_time) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            user.workspace_id,
            user.create_time,
        )
        await self._connection.run(
            f"INSERT INTO users ({_COLUMNS}, password_hash) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            user.user_id,
            user.workspace_id,
            user.email,
            user.display_name,
            user.role,
            user.create_time,
            password_hash,
        )

    async def get(self, user_id: UUID) -> User:
        row = await self._connection.row(f"SELECT {_COLUMNS} FROM users WHERE user_id = $1", user_id)
        if row is None:
            raise UserNotFound
        return _user(row)

    async def credentials(self, email: str) -> tuple[User, str] | None:
        row = await self._connection.row(f"SELECT {_COLUMNS}, password_hash FROM users WHERE email = $1", email)
        return None if row is None else (_user(row), row["password_hash"])

    async def password_hash(self, user_id: UUID) -> str | None:
        # Two changes at once would deadlock on a shared lock that both want to raise.
        found: str | None = await self._connection.value(
            "SELECT password_hash FROM users WHERE user_id = $1 FOR NO KEY UPDATE", user_id
        )
        return found

    async def set_password_hash(self, user_id: UUID, password_hash: str) -> None:
        await self._connection.run("UPDATE users SET password_hash = $2 WHERE user_id = $1", user_id, password_hash)


def _user(row: Record) -> User:
    return User(
        row["user_id"], row["workspace_id"], row["email"], row["display_name"], Role(row["role"]), row["create_time"]
    )

"""Transactions on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.postgres.connection import Connection
from adapters.postgres.conversations import PostgresConversations
from adapters.postgres.messages import PostgresMessages
from adapters.postgres.pool import Pool
from adapters.postgres.requests import PostgresRequests
from adapters.postgres.runs import PostgresRuns
from adapters.postgres.sessions import PostgresSessions
from adapters.postgres.users import PostgresUsers
from application.ports.repositories import Conversations, Messages, Requests, Runs, Sessions, Users
from application.ports.unit_of_work import UnitOfWork, UnitOfWorkFactory


class PostgresUnitOfWork(UnitOfWork):
    """The repositories on one connection."""

    def __init__(self, connection: Connection) -> None:
        self.users: Users = PostgresUsers(connection)
        self.sessions: Sessions = PostgresSessions(connection)
        self.conversations: Conversations = PostgresConversations(connection)
        self.messages: Messages = PostgresMessages(connection)
        self.runs: Runs = PostgresRuns(connection)
        self.requests: Requests = PostgresRequests(connection)
        self._connection = connection

    async def commit(self) -> None:
        # After a failed statement the server answers COMMIT with a rollback, and calls it no error.
        if await self._connection.run("COMMIT") != "COMMIT":
            raise RuntimeError("commit after a failed statement")


class PostgresUnitOfWorkFactory(UnitOfWorkFactory):
    """Opens transactions on connections of the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[UnitOfWork]:
        async with self._pool.connection() as connection:
            await connection.run("BEGIN")
            try:
                yield PostgresUnitOfWork(connection)
            finally:
                await connection.roll_back()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[UnitOfWork]:
        async with self._pool.connection() as connection:
            yield PostgresUnitOfWork(connection)

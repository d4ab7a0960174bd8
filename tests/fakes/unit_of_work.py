"""Transactions in memory: nothing of a block is seen outside it before its commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from application.ports.repositories import Conversations, Messages, Requests, Runs, Sessions, Users
from application.ports.unit_of_work import UnitOfWork, UnitOfWorkFactory
from domain.errors import DatabaseUnavailable
from tests.fakes.database import FakeDatabase
from tests.fakes.repositories import (
    FakeConversations,
    FakeMessages,
    FakeRequests,
    FakeRuns,
    FakeSessions,
    FakeUsers,
)


class FakeUnitOfWork(UnitOfWork):
    """The repositories on a copy of the tables, until `commit` brings its changes back."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self._before = database.tables.copy()
        self._tables = tables = database.tables.copy()
        self.users: Users = FakeUsers(tables)
        self.sessions: Sessions = FakeSessions(tables)
        self.conversations: Conversations = FakeConversations(tables)
        self.messages: Messages = FakeMessages(tables)
        self.runs: Runs = FakeRuns(tables, database.clock)
        self.requests: Requests = FakeRequests(tables)

    async def commit(self) -> None:
        self._database.tables.apply(self._before, self._tables)


class FakeUnitOfWorkFactory(UnitOfWorkFactory):
    """Opens transactions one at a time; the next `unavailable` blocks are refused."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self.unavailable = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[UnitOfWork]:
        async with self._database.turn, self.reading() as work:
            yield work

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[UnitOfWork]:
        if self.unavailable:
            self.unavailable -= 1
            raise DatabaseUnavailable
        yield FakeUnitOfWork(self._database)

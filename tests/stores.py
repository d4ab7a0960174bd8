"""The ports of the database together, in memory and on PostgreSQL, for tests that both must pass."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from adapters.postgres.migrate import migrate
from adapters.postgres.pool import Pool, open_pool
from adapters.postgres.replica_registry import PostgresReplicaRegistry
from adapters.postgres.run_log import PostgresRunLog
from adapters.postgres.unit_of_work import PostgresUnitOfWorkFactory
from application.ports.replica_registry import ReplicaRegistry
from application.ports.run_log import RunLog
from application.ports.unit_of_work import UnitOfWorkFactory
from domain.conversation import Conversation, Message
from domain.identity import Caller
from domain.run import Run
from tests.builders import a_caller, a_conversation, a_message, a_run, a_start, a_user, an_answer, new_id
from tests.fakes.database import FakeDatabase
from tests.fakes.replica_registry import FakeReplicaRegistry
from tests.fakes.run_log import FakeRunLog
from tests.fakes.unit_of_work import FakeUnitOfWorkFactory
from tests.servers import empty_database

TABLES = (
    "run_events, packed_events, requests, runs, messages, conversations, revocations, sessions, users, workspaces,"
    " replicas, deployment_keys"
)


@dataclass(frozen=True, slots=True)
class Store:
    """One database behind its ports. `pass_time` makes replicas, leases and ownership older, by the clock of `now`."""

    unit_of_work: UnitOfWorkFactory
    run_log: RunLog
    replicas: ReplicaRegistry
    pass_time: Callable[[timedelta], Awaitable[None]]
    now: Callable[[], Awaitable[datetime]]


@dataclass(frozen=True, slots=True)
class Began:
    """A run in the store, and what it hangs on."""

    replica_id: UUID
    caller: Caller
    conversation: Conversation
    question: Message
    answer: Message
    run: Run


def fake_store() -> Store:
    """An empty database in memory."""
    database = FakeDatabase()

    async def pass_time(amount: timedelta) -> None:
        database.clock.time += amount

    async def now() -> datetime:
        return database.clock.now()

    return Store(FakeUnitOfWorkFactory(database), FakeRunLog(database), FakeReplicaRegistry(database), pass_time, now)


def postgres_store(pool: Pool) -> Store:
    """The database behind the pool, as it is."""

    async def pass_time(amount: timedelta) -> None:
        async with pool.connection() as connection:
            await connection.run(
                "UPDATE replicas SET create_time = create_time - $1::interval, lease_until = lease_until - $1",
                amount,
            )
            await connection.run("UPDATE runs SET owned_since = owned_since - $1::interval", amount)

    async def now() -> datetime:
        async with pool.connection() as connection:
            moment: datetime = await connection.value("SELECT clock_timestamp()")
            return moment

    return Store(PostgresUnitOfWorkFactory(pool), PostgresRunLog(pool), PostgresReplicaRegistry(pool), pass_time, now)


@asynccontextmanager
async def migrated_pool(database_url: str) -> AsyncIterator[Pool]:
    """A pool on a new database with all tables."""
    async with empty_database(database_url) as url:
        await migrate(url)
        pool = await open_pool(url, size=5, timeout_seconds=5)
        try:
            yield pool
        finally:
            await pool.close()


async def empty(pool: Pool) -> None:
    """Deletes all rows: much quicker than a new database."""
    async with pool.connection() as connection:
        for table in TABLES.split(", "):
            await connection.run(f"DELETE FROM {table}")


async def a_registered_caller(store: Store) -> Caller:
    """A user who is in the store."""
    user = a_user()
    async with store.unit_of_work() as work:
        await work.users.add(user, "hash")
        await work.commit()
    return a_caller(user)


async def a_stored_conversation(store: Store, owner: Caller | None = None) -> tuple[Caller, Conversation]:
    """A conversation in the store, and its owner."""
    caller = owner or await a_registered_caller(store)
    conversation = a_conversation(caller)
    async with store.unit_of_work() as work:
        await work.conversations.add(conversation)
        await work.commit()
    return caller, conversation


async def a_begun_run(store: Store, replica_id: UUID | None = None, **changes: Any) -> Began:
    """A running run in the store with its first event, owned by a replica that has joined."""
    caller, conversation = await a_stored_conversation(store)
    if replica_id is None:
        replica_id = new_id()
        await store.replicas.join(replica_id)
    question = a_message(conversation)
    answer = an_answer(conversation, question)
    run = a_run(conversation, answer, owner=replica_id, **changes)
    async with store.unit_of_work() as work:
        await work.messages.add(caller.workspace_id, question, answer)
        await work.runs.add(run, a_start(run, question.message_id))
        await work.commit()
    return Began(replica_id, caller, conversation, question, answer, run)

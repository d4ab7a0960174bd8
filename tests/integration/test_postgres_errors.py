"""What becomes of PostgreSQL's failures."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from adapters.postgres.migrate import migrate
from adapters.postgres.pool import Pool, open_pool
from adapters.postgres.unit_of_work import PostgresUnitOfWorkFactory
from domain.errors import DatabaseUnavailable, EmailTaken, InvalidInput
from tests.builders import a_conversation, a_user
from tests.stores import a_stored_conversation, postgres_store


@pytest.fixture
async def url(fresh_database_url: str) -> str:
    await migrate(fresh_database_url)
    return fresh_database_url


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Pool]:
    opened = await open_pool(url, size=2, timeout_seconds=1)
    yield opened
    await opened.close()


@pytest.fixture
async def rival(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else's connection to the same database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def test_a_pool_that_answers_says_so(pool: Pool) -> None:
    await pool.ping()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await open_pool(f"postgresql://postgres@/postgres?host={tmp_path}", size=2, timeout_seconds=1)


async def test_a_pool_without_a_free_connection_is_unavailable_in_time(pool: Pool) -> None:
    async with pool.connection(), pool.connection():
        with pytest.raises(DatabaseUnavailable):
            await pool.ping()
    await pool.ping()


async def test_a_closed_pool_is_unavailable(pool: Pool) -> None:
    await pool.close()
    with pytest.raises(DatabaseUnavailable):
        await pool.ping()


async def test_a_statement_that_takes_too_long_is_unavailable(pool: Pool) -> None:
    async with pool.connection() as connection:
        with pytest.raises(DatabaseUnavailable):
            await connection.run("SELECT pg_sleep(30)")
        assert await connection.value("SELECT 1") == 1


async def test_a_row_locked_by_another_for_too_long_is_unavailable(pool: Pool, rival: asyncpg.Connection) -> None:
    caller, conversation = await a_stored_conversation(postgres_store(pool))
    async with rival.transaction():
        await rival.execute("SELECT FROM conversations FOR UPDATE")
        async with PostgresUnitOfWorkFactory(pool)() as work:
            with pytest.raises(DatabaseUnavailable):
                await work.conversations.lock(conversation.conversation_id, caller)


async def test_a_connection_cut_within_a_transaction_is_unavailable_and_the_next_one_is_fresh(
    pool: Pool, rival: asyncpg.Connection
) -> None:
    async with PostgresUnitOfWorkFactory(pool)() as work:
        await _cut_all(rival)
        with pytest.raises(DatabaseUnavailable):
            await work.users.add(a_user(), "hash")
    await pool.ping()


async def test_a_connection_cut_while_a_commit_is_due_is_unavailable(pool: Pool, rival: asyncpg.Connection) -> None:
    user = a_user()
    async with PostgresUnitOfWorkFactory(pool)() as work:
        await work.users.add(user, "hash")
        await _cut_all(rival)
        with pytest.raises(DatabaseUnavailable):
            await work.commit()
    async with PostgresUnitOfWorkFactory(pool).reading() as work:
        assert await work.users.password_hash(user.user_id) is None


async def test_idle_connections_that_were_cut_are_replaced_unnoticed(pool: Pool, rival: asyncpg.Connection) -> None:
    async with pool.connection(), pool.connection():
        pass
    await _cut_all(rival)
    await asyncio.gather(pool.ping(), pool.ping())


async def test_a_cancelled_statement_leaves_the_pool_as_good_as_before(pool: Pool, rival: asyncpg.Connection) -> None:
    async def sleep_long() -> None:
        async with pool.connection() as connection:
            await connection.run("SELECT pg_sleep(30)")

    tasks = [asyncio.create_task(sleep_long()) for _ in range(2)]
    while await rival.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") < len(tasks):
        await rival.execute("SELECT pg_stat_clear_snapshot()")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    await asyncio.gather(pool.ping(), pool.ping())


async def test_a_commit_after_a_failed_statement_is_no_success(pool: Pool) -> None:
    user = a_user()
    async with PostgresUnitOfWorkFactory(pool)() as work:
        await work.users.add(user, "hash")
        with pytest.raises(EmailTaken):
            await work.users.add(a_user(email=user.email), "hash")
        with pytest.raises(RuntimeError):
            await work.commit()


@pytest.mark.parametrize("title", ["a\x00b", "a\ud800b"])
async def test_text_that_cannot_be_stored_is_invalid_input(pool: Pool, title: str) -> None:
    async with PostgresUnitOfWorkFactory(pool)() as work:
        with pytest.raises(InvalidInput):
            await work.conversations.add(a_conversation(title=title))


async def test_a_reference_to_nothing_is_our_own_mistake_and_stays_visible(pool: Pool) -> None:
    async with PostgresUnitOfWorkFactory(pool)() as work:
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await work.conversations.add(a_conversation())


async def test_a_column_added_under_a_running_service_disturbs_nobody(pool: Pool, rival: asyncpg.Connection) -> None:
    store = postgres_store(pool)
    caller, conversation = await a_stored_conversation(store)
    async with store.unit_of_work() as work:
        await work.conversations.get(conversation.conversation_id, caller)
    await rival.execute("ALTER TABLE conversations ADD COLUMN later text")
    async with store.unit_of_work() as work:
        assert await work.conversations.get(conversation.conversation_id, caller) == conversation


async def _cut_all(rival: asyncpg.Connection) -> None:
    await rival.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

"""The fence and its row lock, with two sessions at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from adapters.postgres.migrate import migrate
from adapters.postgres.pool import Pool, open_pool
from domain.conversation import NO_USAGE
from domain.run import Completed, FinishReason, RunState, end
from tests.builders import NOW, an_event, new_id
from tests.stores import Store, a_begun_run, postgres_store


@pytest.fixture
async def pool(fresh_database_url: str) -> AsyncIterator[Pool]:
    await migrate(fresh_database_url)
    opened = await open_pool(fresh_database_url, size=3, timeout_seconds=5)
    yield opened
    await opened.close()


@pytest.fixture
def store(pool: Pool) -> Store:
    return postgres_store(pool)


@pytest.fixture
async def rival(fresh_database_url: str, pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    """Another session on the same database."""
    connection = await asyncpg.connect(fresh_database_url)
    yield connection
    await connection.close()


async def test_fencing_waits_for_the_batch_that_is_being_written(store: Store, rival: asyncpg.Connection) -> None:
    began = await a_begun_run(store)
    await store.pass_time(timedelta(seconds=11))
    async with rival.transaction():
        await rival.execute("SELECT FROM replicas FOR SHARE")
        fencing = asyncio.create_task(store.replicas.fence_expired())
        await _someone_waits(rival)
        assert not fencing.done()
    assert await fencing == 1
    assert not await store.run_log.append(began.replica_id, [an_event(began.run, 2, "late")])


async def test_a_batch_that_waited_for_its_fence_writes_nothing(store: Store, rival: asyncpg.Connection) -> None:
    began = await a_begun_run(store)
    async with rival.transaction():
        await rival.execute("UPDATE replicas SET fenced = true")
        writing = asyncio.create_task(store.run_log.append(began.replica_id, [an_event(began.run, 2, "late")]))
        await _someone_waits(rival)
    assert not await writing
    page = await store.run_log.read(began.run.workspace_id, began.run.run_id, 0)
    assert len(page.events) == 1


async def test_an_end_that_waited_for_a_request_to_cancel_is_whole(store: Store, rival: asyncpg.Connection) -> None:
    began = await a_begun_run(store)
    answer = replace(began.answer, content="It rains.")
    ending = end(began.run, answer, FinishReason.STOP, usage=NO_USAGE, tail=[], now=NOW)
    async with rival.transaction():
        await rival.execute("UPDATE runs SET cancel_requested = true")
        ended = asyncio.create_task(store.run_log.finish(began.replica_id, ending))
        await _someone_waits(rival)
    assert await ended
    [_, last] = (await store.run_log.read(began.run.workspace_id, began.run.run_id, 0)).events
    assert last.body == Completed(ending.message, FinishReason.STOP)
    async with store.unit_of_work.reading() as work:
        assert (await work.runs.get(began.run.run_id, began.caller)).state is RunState.COMPLETED


async def test_a_run_that_another_session_holds_is_not_waited_for(store: Store, rival: asyncpg.Connection) -> None:
    held = await a_begun_run(store)
    free = await a_begun_run(store, held.replica_id)
    await store.replicas.leave(held.replica_id)
    async with rival.transaction():
        await rival.execute("SELECT FROM runs WHERE run_id = $1 FOR UPDATE", held.run.run_id)
        [(run, _)] = await store.replicas.adopt_orphans(await _joined(store), [], 10)
    assert run.run_id == free.run.run_id


async def test_an_adopter_that_waited_for_its_fence_adopts_nothing(store: Store, rival: asyncpg.Connection) -> None:
    began, me = await a_begun_run(store), await _joined(store)
    await store.replicas.leave(began.replica_id)
    async with rival.transaction():
        await rival.execute("UPDATE replicas SET fenced = true WHERE replica_id = $1", me)
        adopting = asyncio.create_task(store.replicas.adopt_orphans(me, [], 10))
        await _someone_waits(rival)
    assert await adopting == []


async def test_fencing_waits_for_an_adoption_under_way(store: Store, rival: asyncpg.Connection) -> None:
    began, me = await a_begun_run(store), await _joined(store)
    await store.replicas.leave(began.replica_id)
    async with rival.transaction():
        await rival.execute("LOCK TABLE run_events IN SHARE MODE")
        adopting = asyncio.create_task(store.replicas.adopt_orphans(me, [], 10))
        await _someone_waits(rival)
        leaving = asyncio.create_task(store.replicas.leave(me))
        await _someone_waits(rival, sessions=2)
        assert not leaving.done()
    [(run, _)] = await adopting
    await leaving
    assert (run.owner, run.attempt) == (me, 2)


async def test_an_adoption_that_fails_changes_nothing(store: Store, pool: Pool) -> None:
    began, me = await a_begun_run(store), await _joined(store)
    await store.replicas.leave(began.replica_id)
    async with pool.connection() as connection:
        await connection.run("ALTER TABLE run_events ADD CONSTRAINT no_resets CHECK (kind <> 3)")
        with pytest.raises(asyncpg.CheckViolationError):
            await store.replicas.adopt_orphans(me, [], 10)
        await connection.run("ALTER TABLE run_events DROP CONSTRAINT no_resets")
    async with store.unit_of_work.reading() as work:
        assert await work.runs.get(began.run.run_id, began.caller) == began.run


async def test_a_session_stopped_within_a_transaction_is_thrown_out_and_its_rows_are_free(
    store: Store, pool: Pool
) -> None:
    began = await a_begun_run(store)
    async with pool.connection() as stopped:
        await stopped.run("BEGIN")
        await stopped.run("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
        await stopped.run("SELECT FROM replicas FOR UPDATE")
        assert await store.run_log.append(began.replica_id, [an_event(began.run, 2, "on time")])


async def test_every_session_has_its_timeouts(pool: Pool) -> None:
    async with pool.connection() as connection:
        values = [
            await connection.value(f"SHOW {setting}")
            for setting in ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
        ]
    assert values == ["5s", "3s", "5s"]


async def _joined(store: Store) -> UUID:
    replica_id = new_id()
    await store.replicas.join(replica_id)
    return replica_id


async def _someone_waits(rival: asyncpg.Connection, sessions: int = 1) -> None:
    """Returns when so many other sessions wait for a lock."""
    async with asyncio.timeout(10):
        while sessions > await rival.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await rival.execute("SELECT pg_stat_clear_snapshot()")

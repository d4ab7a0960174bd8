"""What the tables cost, and what only a real server can show of them."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from adapters.postgres.keys import load_or_create
from adapters.postgres.pool import Pool
from domain.conversation import NO_USAGE
from domain.run import Cancelled, FinishReason, end
from tests.builders import NOW, an_event
from tests.stores import Store, a_begun_run, migrated_pool, postgres_store


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with migrated_pool(database_url) as opened:
        yield opened


@pytest.fixture
def store(pool: Pool) -> Store:
    return postgres_store(pool)


async def test_an_event_costs_at_most_250_bytes_beside_its_text(store: Store, pool: Pool) -> None:
    first = await a_begun_run(store)
    runs = [first.run, *[(await a_begun_run(store, first.replica_id)).run for _ in range(31)]]
    text = "eleven more"
    for seq in range(2, 302):
        assert await store.run_log.append(first.replica_id, [an_event(run, seq, text) for run in runs])
    async with pool.connection() as connection:
        size: int = await connection.value("SELECT pg_total_relation_size('run_events')")
    assert size / (32 * 300) - len(text) <= 250


async def test_filling_in_an_answer_leaves_the_indexes_alone(store: Store, pool: Pool) -> None:
    for _ in range(20):
        began = await a_begun_run(store)
        await store.run_log.finish(
            began.replica_id, end(began.run, began.answer, FinishReason.STOP, usage=NO_USAGE, tail=[], now=NOW)
        )
    async with pool.connection() as connection:
        await connection.run("SELECT pg_stat_force_next_flush()")
        await connection.run("SELECT pg_stat_clear_snapshot()")
        row = await connection.row(
            "SELECT sum(n_tup_upd) u, sum(n_tup_hot_upd) h FROM pg_stat_user_tables WHERE relname = 'messages'"
        )
    assert row is not None
    assert row["h"] == row["u"]


async def test_a_long_log_is_erased_in_several_bounded_calls(store: Store, pool: Pool) -> None:
    began = await a_begun_run(store)
    ending = end(began.run, began.answer, Cancelled(), usage=NO_USAGE, tail=[], now=NOW)
    await store.run_log.finish(began.replica_id, ending)
    async with pool.connection() as connection:
        await connection.run(
            "INSERT INTO run_events (workspace_id, run_id, seq, attempt, create_time, kind, payload)"
            " SELECT $1, $2, n, 1, now(), 2, 'x' FROM generate_series(3, 25000) n",
            began.run.workspace_id,
            began.run.run_id,
        )
    async with store.unit_of_work() as work:
        await work.conversations.hide(began.conversation.conversation_id, began.caller, NOW)
        await work.commit()
    assert [await _erase_hidden(store) for _ in range(3)] == [0, 1, 0]
    async with pool.connection() as connection:
        for table in ("run_events", "runs", "messages", "conversations"):
            assert await connection.value(f"SELECT count(*) FROM {table}") == 0


async def test_replicas_that_start_together_agree_on_a_key(pool: Pool) -> None:
    keys = await asyncio.gather(*(load_or_create(pool, "pepper", lambda: os.urandom(32)) for _ in range(5)))
    assert len(set(keys)) == 1


async def test_a_key_is_made_once(pool: Pool) -> None:
    await load_or_create(pool, "pepper", lambda: b"first")
    assert await load_or_create(pool, "pepper", lambda: b"second") == b"first"


async def _erase_hidden(store: Store) -> int:
    async with store.unit_of_work() as work:
        erased = await work.conversations.erase_hidden()
        await work.commit()
    return erased

"""Packed logs: what they cost, that they are the same for ever, and what else may go on meanwhile."""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.postgres import packing
from adapters.postgres.event_codec import ATTEMPT_RESET, TEXT_DELTA
from adapters.postgres.migrate import migrate
from adapters.postgres.packed_codec import StoredEvent, pack, unpack
from adapters.postgres.pool import Pool, open_pool
from domain.conversation import NO_USAGE
from domain.run import AttemptReset, Cancelled, EventBody, Failed, FinishReason, RunEvent, TextDelta, end
from tests.builders import NOW, an_event
from tests.stores import Began, Store, a_begun_run, postgres_store

LATER = datetime(2100, 1, 1, tzinfo=UTC)
README = Path(__file__).parents[2] / "README.md"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
moments = st.integers(-(10**15), 4 * 10**15).map(lambda microseconds: NOW + timedelta(microseconds=microseconds))
stored_events = st.builds(
    StoredEvent,
    st.integers(1, 2**31 - 1),
    st.integers(1, 3),
    moments,
    st.sampled_from([TEXT_DELTA, TEXT_DELTA, ATTEMPT_RESET]),
    texts,
)
logs = st.lists(st.lists(st.tuples(texts, st.integers(-5_000, 100_000)), max_size=12), min_size=1, max_size=4)
outcomes = st.sampled_from([FinishReason.STOP, Failed("MODEL_STALLED", "nothing came"), Cancelled()])


@pytest.fixture
async def pool(fresh_database_url: str) -> AsyncIterator[Pool]:
    await migrate(fresh_database_url)
    opened = await open_pool(fresh_database_url, size=4, timeout_seconds=5)
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


@given(st.lists(stored_events, min_size=1, max_size=30), st.integers(0, 3))
def test_whatever_is_packed_is_unpacked_the_same(events: list[StoredEvent], attempt: int) -> None:
    left_out = "".join(event.payload for event in events if event.is_text_of(attempt))
    assert unpack(pack(events, attempt), left_out) == events


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs, outcome=outcomes)
async def test_any_log_is_the_same_from_any_cursor_once_it_is_packed(
    store: Store, monkeypatch: pytest.MonkeyPatch, log: list[list[tuple[str, int]]], outcome: FinishReason | Cancelled
) -> None:
    monkeypatch.setattr(packing, "_EVENTS", 7)
    began = await _ended(store, log, outcome)
    before = await _read(store, began)
    assert await store.run_log.pack(LATER, 1) == 1
    assert await _read(store, began) == before
    for after_seq in range(len(before) + 1):
        assert await _read(store, began, after_seq) == before[after_seq:]


async def test_a_packed_answer_costs_at_most_a_fifth_more_than_its_text(store: Store, pool: Pool) -> None:
    for seed in range(60):  # enough that the first pages of the indexes do not count
        await _ended(store, [_like_a_models(random.Random(seed))])
    assert await store.run_log.pack(LATER, 100) == 60
    async with pool.connection() as connection:
        stored, text = await connection.row(
            "SELECT sum(pg_column_size(content)) + pg_total_relation_size('packed_events'), sum(octet_length(content))"
            " FROM messages WHERE role = 'ASSISTANT'"
        ) or (1, 0)
        assert await connection.value("SELECT count(*) FROM run_events") == 0
    assert stored / text <= 1.2


async def test_a_text_that_is_not_the_messages_is_kept(store: Store, pool: Pool) -> None:
    began = await _ended(store, [[("It ", 0), ("rains.", 0)]], Cancelled())
    before = await _read(store, began)
    async with pool.connection() as connection:
        await connection.run("UPDATE messages SET content = 'It snows.' WHERE role = 'ASSISTANT'")
    await store.run_log.pack(LATER, 1)
    assert await _read(store, began) == before


async def test_a_reader_sees_the_whole_log_while_it_is_being_packed(store: Store, rival: asyncpg.Connection) -> None:
    began = await _ended(store, [[("It ", 0), ("rains.", 0)]])
    before = await _read(store, began)
    async with rival.transaction():
        await rival.execute("LOCK TABLE packed_events IN SHARE MODE")
        packed = asyncio.create_task(store.run_log.pack(LATER, 1))
        await _someone_waits(rival)
        assert await _read(store, began) == before
    assert await packed == 1
    assert await _read(store, began) == before


async def test_readers_and_packers_in_each_others_way_lose_nothing(store: Store) -> None:
    ended = [await _ended(store, [[(f"{n} ", n), ("times", n)]]) for n in range(12)]
    before = [await _read(store, began) for began in ended]
    packed, seen, again = await asyncio.gather(
        asyncio.gather(store.run_log.pack(LATER, 10), store.run_log.pack(LATER, 10)),
        asyncio.gather(*(_read(store, began) for began in ended)),
        asyncio.gather(*(_read(store, began, after_seq=2) for began in reversed(ended))),
    )
    total = sum(packed)
    while left := await store.run_log.pack(LATER, 10):
        total += left
    assert total == 12
    assert seen == before
    assert again == [log[2:] for log in reversed(before)]


async def test_a_run_whose_conversation_is_being_erased_is_not_packed(store: Store, rival: asyncpg.Connection) -> None:
    await _ended(store, [[("It rains.", 0)]])
    async with rival.transaction():
        await rival.execute("SELECT FROM conversations FOR UPDATE")
        assert await store.run_log.pack(LATER, 1) == 0
    assert await store.run_log.pack(LATER, 1) == 1


async def _ended(
    store: Store,
    log: Sequence[Sequence[tuple[str, int]]],
    outcome: FinishReason | Failed | Cancelled = FinishReason.STOP,
) -> Began:
    """A run that has ended; the log is, for each attempt, its pieces and the microseconds that each took."""
    began, now = await a_begun_run(store), NOW
    bodies: list[tuple[int, EventBody, int]] = []
    for attempt, pieces in enumerate(log, start=1):
        if attempt > 1:
            bodies.append((attempt, AttemptReset("REPLICA_LOST"), 0))
        bodies += [(attempt, TextDelta(text), microseconds) for text, microseconds in pieces]
    events: list[RunEvent] = []
    for seq, (attempt, body, microseconds) in enumerate(bodies, start=2):
        now += timedelta(microseconds=microseconds)
        events.append(an_event(began.run, seq, body, attempt=attempt, create_time=now))
    answer = replace(began.answer, content="".join(text for text, _ in log[-1]))
    ending = end(replace(began.run, attempt=len(log)), answer, outcome, usage=NO_USAGE, tail=events, now=now)
    assert await store.run_log.finish(began.replica_id, ending)
    return began


def _like_a_models(chance: random.Random) -> list[tuple[str, int]]:
    """A thousand tokens of English, one to three in a piece, as a model would send them, timed in milliseconds."""
    tokens = re.findall(r"\s?\S{1,7}", README.read_text())
    first, pieces, length = chance.randrange(len(tokens) - 1000), [], 0
    while length < 1000:
        count = min(chance.randint(1, 3), 1000 - length)
        milliseconds = sum(chance.randint(15, 50) for _ in range(count))
        pieces.append(("".join(tokens[first + length : first + length + count]), 1000 * milliseconds))
        length += count
    return pieces


async def _read(store: Store, began: Began, after_seq: int = 0) -> list[RunEvent]:
    events: list[RunEvent] = []
    while True:
        cursor = events[-1].seq if events else after_seq
        page = await store.run_log.read(began.run.workspace_id, began.run.run_id, cursor)
        events.extend(page.events)
        if not page.has_more:
            return events


async def _someone_waits(rival: asyncpg.Connection) -> None:
    """Returns when another session waits for a lock."""
    async with asyncio.timeout(10):
        while not await rival.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            await rival.execute("SELECT pg_stat_clear_snapshot()")

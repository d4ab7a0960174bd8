"""The lease: renewed while the main loop moves, given up before others take over, lost when the database says so."""

import asyncio
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application.lease import (
    HELD_SECONDS,
    LONGEST_STALL,
    RENEWAL_SECONDS,
    RETRY_SECONDS,
    SILENCE_SECONDS,
    Lease,
)
from tests.builders import new_id
from tests.fakes.database import FakeDatabase
from tests.fakes.replica_registry import LEASE, FakeReplicaRegistry
from tests.unit.waiting import settled


class SlowRegistry(FakeReplicaRegistry):
    """Keeps whoever renews waiting for the answer until `answers` is set; `asked` counts the renewals."""

    def __init__(self, database: FakeDatabase) -> None:
        super().__init__(database)
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0

    async def renew(self, replica_id: UUID) -> bool:
        self.asked += 1
        held = await super().renew(replica_id)
        await self.answers.wait()
        return held


class Term:
    """A lease that has begun, and time by hand."""

    def __init__(self) -> None:
        self.database = FakeDatabase()
        self.registry = SlowRegistry(self.database)
        self.lease = Lease(self.now)

    def now(self) -> float:
        return self.database.clock.now().timestamp()

    def passes(self, seconds: float) -> None:
        self.database.clock.advance(seconds=seconds)

    async def begins(self) -> UUID:
        replica_id, sent = new_id(), self.now()
        await self.registry.join(replica_id)
        self.lease.begin(replica_id, sent)
        return replica_id

    async def is_renewed(self) -> float:
        return await self.lease.renew(self.registry)


@pytest.fixture
async def term() -> Term:
    term = Term()
    await term.begins()
    return term


async def test_a_lease_that_has_just_begun_is_good(term: Term) -> None:
    assert not term.lease.is_over
    assert not term.lease.is_silent


async def test_a_lease_lives_as_long_as_it_is_renewed(term: Term) -> None:
    for _ in range(20):
        term.passes(RENEWAL_SECONDS)
        term.lease.beat()
        assert await term.is_renewed() == RENEWAL_SECONDS
        assert not term.lease.is_silent


async def test_a_replica_stops_itself_before_others_may_take_over(term: Term) -> None:
    term.passes(HELD_SECONDS + 0.01)
    assert term.lease.is_over
    assert await term.registry.fence_expired() == 0
    assert LEASE.total_seconds() > HELD_SECONDS


async def test_a_replica_falls_silent_before_it_stops_itself(term: Term) -> None:
    term.passes(SILENCE_SECONDS + 0.01)
    assert term.lease.is_silent
    assert not term.lease.is_over


async def test_the_age_counts_from_when_the_renewal_was_sent(term: Term) -> None:
    term.registry.answers.clear()
    renewing = asyncio.create_task(term.is_renewed())
    await settled()
    term.passes(3)
    term.registry.answers.set()
    await renewing
    assert term.lease.age == pytest.approx(3)


async def test_a_new_lease_counts_from_when_it_was_asked_for(term: Term) -> None:
    sent = term.now()
    term.passes(4)
    term.lease.begin(new_id(), sent)
    assert term.lease.age == pytest.approx(4)


async def test_a_silent_database_costs_the_lease_only_in_time(term: Term) -> None:
    term.registry.unavailable = 3
    for _ in range(3):
        term.passes(1)
        term.lease.beat()
        assert await term.is_renewed() == RETRY_SECONDS
    assert term.lease.age == pytest.approx(3)
    await term.is_renewed()
    assert term.lease.age == 0


async def test_a_lease_that_the_database_refuses_is_lost_at_once(term: Term) -> None:
    assert term.lease.replica_id
    await term.registry.leave(term.lease.replica_id)
    await term.is_renewed()
    assert term.lease.is_over


async def test_a_lost_lease_is_not_renewed_any_more(term: Term) -> None:
    assert term.lease.replica_id
    await term.registry.leave(term.lease.replica_id)
    await term.is_renewed()
    asked = term.registry.asked
    assert await term.is_renewed() == RETRY_SECONDS
    assert term.registry.asked == asked


async def test_a_lease_that_was_given_up_is_not_renewed_any_more(term: Term) -> None:
    term.lease.end()
    assert await term.is_renewed() == RETRY_SECONDS
    assert not term.registry.asked


async def test_a_replica_that_has_not_joined_renews_nothing() -> None:
    term = Term()
    assert await term.is_renewed() == RETRY_SECONDS
    assert not term.registry.asked


async def test_a_new_lease_after_a_lost_one_is_good(term: Term) -> None:
    assert term.lease.replica_id
    await term.registry.leave(term.lease.replica_id)
    await term.is_renewed()
    await term.begins()
    assert not term.lease.is_over
    assert await term.is_renewed() == RENEWAL_SECONDS


async def test_a_main_loop_that_stands_still_is_taken_for_dead(term: Term) -> None:
    for _ in range(10):
        term.passes(2)
        await term.is_renewed()
    asked = term.registry.asked
    term.passes(LONGEST_STALL - 20 + 0.01)
    with capture_logs() as logs:
        assert await term.is_renewed() == RETRY_SECONDS
    assert term.registry.asked == asked == 10
    assert [line["event"] for line in logs] == ["lease.loop_stalled"]


async def test_a_main_loop_that_moves_again_is_alive(term: Term) -> None:
    term.passes(5)
    await term.is_renewed()
    term.passes(LONGEST_STALL - 1)
    term.lease.beat()
    assert term.lease.is_over
    await term.begins()
    assert await term.is_renewed() == RENEWAL_SECONDS


@pytest.mark.parametrize("fenced", [True, False], ids=["refused", "granted"])
async def test_a_late_answer_about_the_old_lease_leaves_the_new_one_alone(term: Term, fenced: bool) -> None:
    assert term.lease.replica_id
    if fenced:
        await term.registry.leave(term.lease.replica_id)
    term.registry.answers.clear()
    renewing = asyncio.create_task(term.is_renewed())
    await settled()
    term.passes(5)
    await term.begins()
    term.passes(1)
    term.registry.answers.set()
    await renewing
    assert term.lease.age == pytest.approx(1)
    assert not term.lease.is_over

"""What every registry of replicas owes its callers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from domain.conversation import NO_USAGE
from domain.errors import ReplicaLost
from domain.run import AttemptReset, Cancelled, Run, RunEvent, end, failed
from tests.builders import NOW, an_event, new_id
from tests.stores import Began, Store, a_begun_run

PAST_LEASE = timedelta(seconds=11)


class ReplicaRegistryContract:
    async def test_a_replica_that_joined_renews_its_lease(self, store: Store) -> None:
        me = new_id()
        await store.replicas.join(me)
        assert await store.replicas.renew(me)

    async def test_a_replica_that_never_joined_has_no_lease_to_renew(self, store: Store) -> None:
        assert not await store.replicas.renew(new_id())

    async def test_a_renewed_lease_is_as_long_as_a_fresh_one(self, store: Store) -> None:
        me = new_id()
        await store.replicas.join(me)
        for _ in range(3):
            await store.pass_time(timedelta(seconds=8))
            assert await store.replicas.renew(me)

    async def test_a_lease_that_ran_out_is_lost_for_good(self, store: Store) -> None:
        me = new_id()
        await store.replicas.join(me)
        await store.pass_time(PAST_LEASE)
        assert not await store.replicas.renew(me)

    async def test_a_replica_that_left_has_no_lease(self, store: Store) -> None:
        me = new_id()
        await store.replicas.join(me)
        await store.replicas.leave(me)
        assert not await store.replicas.renew(me)

    async def test_a_fenced_replica_does_not_come_back_by_joining_again(self, store: Store) -> None:
        me = new_id()
        await store.replicas.join(me)
        await store.replicas.leave(me)
        await store.replicas.join(me)
        assert not await store.replicas.renew(me)

    async def test_only_those_whose_lease_ran_out_are_fenced_and_only_once(self, store: Store) -> None:
        dead, alive = new_id(), new_id()
        await store.replicas.join(dead)
        await store.pass_time(PAST_LEASE)
        await store.replicas.join(alive)
        assert await store.replicas.fence_expired() == 1
        assert await store.replicas.fence_expired() == 0
        assert await store.replicas.renew(alive)

    async def test_who_leaves_learns_who_lives_on(self, store: Store) -> None:
        await _joined(store)  # its lease runs out
        await store.pass_time(PAST_LEASE)
        gone, alive, me = await _joined(store), [await _joined(store), await _joined(store)], await _joined(store)
        await store.replicas.leave(gone)
        assert sorted(await store.replicas.leave(me)) == sorted(alive)

    async def test_a_run_of_a_dead_replica_begins_again_under_its_adopter(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, 2, "It "), an_event(began.run, 3, "rains.")])
        me = await _dies(store, began)
        [(run, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run == replace(began.run, owner=me, attempt=2, last_seq=4, crashes=1)
        assert message == began.answer
        assert await _stored(store, began) == run
        [reset] = await _log(store, began, after_seq=3)
        assert (reset.attempt, reset.body) == (2, AttemptReset("REPLICA_LOST"))

    async def test_a_run_that_was_handed_over_begins_again_without_a_crash(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        await store.replicas.leave(began.replica_id)
        [(run, _)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run == replace(began.run, owner=me, attempt=2, last_seq=2, crashes=0)
        [reset] = await _log(store, began, after_seq=1)
        assert (reset.attempt, reset.body) == (2, AttemptReset("REPLICA_DRAINING"))

    async def test_leaving_after_the_fence_is_no_hand_over(self, store: Store) -> None:
        began = await a_begun_run(store)
        me = await _dies(store, began)
        await store.replicas.leave(began.replica_id)
        [(run, _)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run.crashes == 1

    async def test_a_run_whose_owner_was_fenced_by_name_begins_again_as_after_a_crash(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        await store.replicas.fence(began.replica_id)
        assert not await store.replicas.renew(began.replica_id)
        [(run, _)] = await store.replicas.adopt_orphans(me, [], 10)
        assert (run.attempt, run.crashes) == (2, 1)

    async def test_a_run_whose_owner_is_not_known_counts_as_crashed(self, store: Store) -> None:
        await a_begun_run(store, new_id())
        [(run, _)] = await store.replicas.adopt_orphans(await _joined(store), [], 10)
        assert (run.attempt, run.crashes) == (2, 1)

    async def test_the_adopter_goes_on_behind_the_reset(self, store: Store) -> None:
        began = await a_begun_run(store)
        me = await _dies(store, began)
        [(run, _)] = await store.replicas.adopt_orphans(me, [], 10)
        event = an_event(run, run.last_seq + 1, "again")
        assert await store.run_log.append(me, [event])
        assert [logged.seq for logged in await _log(store, began)] == [1, 2, 3]
        assert await _log(store, began, after_seq=2) == [event]

    async def test_the_third_crash_ends_the_run_with_the_text_of_its_last_attempt(self, store: Store) -> None:
        began = await a_begun_run(store)
        for text in ("first", "second", "third"):
            run = await _stored(store, began)
            await store.run_log.append(run.owner, [an_event(run, run.last_seq + 1, text)])
            me = await _dies(store, replace(began, replica_id=run.owner))
            [(run, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run == replace(began.run, owner=me, attempt=3, last_seq=6, crashes=3)
        assert run.given_up() == failed(ReplicaLost())
        assert message == replace(began.answer, content="third")
        assert [event.seq for event in await _log(store, began)] == [1, 2, 3, 4, 5, 6]

    async def test_a_run_to_be_cancelled_keeps_its_attempt_and_its_text(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, 2, "It "), an_event(began.run, 3, "rains.")])
        async with store.unit_of_work() as work:
            await work.runs.request_cancel(began.run.run_id, began.caller)
            await work.commit()
        await store.replicas.leave(began.replica_id)
        [(run, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run == replace(began.run, owner=me, last_seq=3, cancel_requested=True)
        assert message == replace(began.answer, content="It rains.")
        assert len(await _log(store, began)) == 3

    async def test_a_fenced_replica_adopts_nothing(self, store: Store) -> None:
        began, left, expired = await a_begun_run(store), await _joined(store), await _joined(store)
        await store.replicas.leave(began.replica_id)
        await store.replicas.leave(left)
        await store.pass_time(PAST_LEASE)
        for fenced in (left, expired, new_id()):
            assert await store.replicas.adopt_orphans(fenced, [], 10) == []
        assert await _stored(store, began) == began.run

    async def test_an_adopted_run_belongs_to_its_adopter(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        await store.replicas.leave(began.replica_id)
        [(run, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []
        ending = end(run, message, failed(ReplicaLost()), usage=NO_USAGE, tail=[], now=NOW)
        assert await store.run_log.finish(me, ending)
        await store.replicas.leave(me)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []

    async def test_runs_of_a_living_replica_are_left_alone(self, store: Store) -> None:
        await a_begun_run(store)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []

    async def test_ended_runs_are_left_alone(self, store: Store) -> None:
        began = await a_begun_run(store)
        ending = end(began.run, began.answer, Cancelled(), usage=NO_USAGE, tail=[], now=NOW)
        await store.run_log.finish(began.replica_id, ending)
        await store.replicas.leave(began.replica_id)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []

    async def test_an_unattended_run_of_ones_own_is_adopted_as_after_a_crash_once_its_begin_is_long_past(
        self, store: Store
    ) -> None:
        forgotten = await a_begun_run(store)
        attended = await a_begun_run(store, forgotten.replica_id)
        me, mine = forgotten.replica_id, [attended.run.run_id]
        await store.pass_time(timedelta(seconds=9))
        assert await store.replicas.renew(me)
        assert await store.replicas.adopt_orphans(me, mine, 10) == []
        await store.pass_time(timedelta(seconds=2))
        [(run, _)] = await store.replicas.adopt_orphans(me, mine, 10)
        assert run == replace(forgotten.run, attempt=2, last_seq=2, crashes=1)
        assert await store.replicas.adopt_orphans(me, mine, 10) == []

    async def test_rivals_share_the_orphans_and_none_is_adopted_twice(self, store: Store) -> None:
        first = await a_begun_run(store)
        orphans = {first.run.run_id} | {(await a_begun_run(store, first.replica_id)).run.run_id for _ in range(7)}
        await store.replicas.leave(first.replica_id)
        adopted = await _adopted_by_four(store)
        while len(adopted) < len(orphans):
            adopted += await _adopted_by_four(store)
        assert len(adopted) == len(orphans)
        assert set(adopted) == orphans

    async def test_no_more_are_adopted_than_asked_for_and_the_oldest_first(self, store: Store) -> None:
        newer = await a_begun_run(store)
        older = await a_begun_run(store, newer.replica_id, create_time=NOW - timedelta(seconds=1))
        await store.replicas.leave(newer.replica_id)
        me = await _joined(store)
        assert [run.run_id for run, _ in await store.replicas.adopt_orphans(me, [], 1)] == [older.run.run_id]
        assert [run.run_id for run, _ in await store.replicas.adopt_orphans(me, [], 9)] == [newer.run.run_id]

    async def test_only_fenced_replicas_without_runs_that_joined_before_the_moment_are_forgotten(
        self, store: Store
    ) -> None:
        gone, busy = await _joined(store), await _joined(store)
        await a_begun_run(store, busy)
        await store.pass_time(timedelta(days=1))
        young = await _joined(store)
        for replica_id in (gone, busy, young):
            await store.replicas.leave(replica_id)
        await store.replicas.forget(await store.now() - timedelta(hours=12))
        assert [await _comes_back(store, replica_id) for replica_id in (gone, busy, young)] == [True, False, False]


async def _comes_back(store: Store, replica_id: UUID) -> bool:
    """Says whether a replica that was fenced may join again, as only a forgotten one may."""
    await store.replicas.join(replica_id)
    return await store.replicas.renew(replica_id)


async def _dies(store: Store, began: Began) -> UUID:
    """Lets the lease of the run's owner run out and returns another replica, which has fenced it."""
    await store.pass_time(PAST_LEASE)
    me = await _joined(store)
    assert await store.replicas.fence_expired()
    return me


async def _stored(store: Store, began: Began) -> Run:
    async with store.unit_of_work.reading() as work:
        return await work.runs.get(began.run.run_id, began.caller)


async def _log(store: Store, began: Began, after_seq: int = 0) -> Sequence[RunEvent]:
    return (await store.run_log.read(began.run.workspace_id, began.run.run_id, after_seq)).events


async def _joined(store: Store) -> UUID:
    replica_id = new_id()
    await store.replicas.join(replica_id)
    return replica_id


async def _adopted_by_four(store: Store) -> list[UUID]:
    rivals = [await _joined(store) for _ in range(4)]
    shares = await asyncio.gather(*(store.replicas.adopt_orphans(rival, [], 2) for rival in rivals))
    return [run.run_id for share in shares for run, _ in share]


class TestFakeReplicaRegistry(ReplicaRegistryContract):
    @pytest.fixture
    def store(self, in_memory: Store) -> Store:
        return in_memory


class TestPostgresReplicaRegistry(ReplicaRegistryContract):
    @pytest.fixture
    def store(self, in_postgres: Store) -> Store:
        return in_postgres

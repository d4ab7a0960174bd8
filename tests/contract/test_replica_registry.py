"""What every registry of replicas owes its callers."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from domain.conversation import NO_USAGE
from domain.errors import ReplicaLost
from domain.run import AttemptReset, Cancelled, EventBody, end, failed
from tests.builders import NOW, an_event, new_id
from tests.stores import Store, a_begun_run

PAST_LEASE = timedelta(seconds=11)
PAST_COMMIT = timedelta(seconds=31)


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

    async def test_a_run_of_a_fenced_replica_is_adopted_with_the_text_of_its_log(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, 2, "It "), an_event(began.run, 3, "rains.")])
        await store.replicas.leave(began.replica_id)
        [(run, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run == replace(began.run, last_seq=3)
        assert message == replace(began.answer, content="It rains.")

    async def test_text_before_a_reset_is_void(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        bodies: list[EventBody | str] = ["void", AttemptReset("OWNER_LOST"), "It ", "rains."]
        await store.run_log.append(
            began.replica_id, [an_event(began.run, seq, body) for seq, body in enumerate(bodies, start=2)]
        )
        await store.replicas.leave(began.replica_id)
        [(_, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert message.content == "It rains."

    async def test_an_adopted_run_belongs_to_its_adopter(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        await store.replicas.leave(began.replica_id)
        [(run, message)] = await store.replicas.adopt_orphans(me, [], 10)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []
        ending = end(run, message, failed(ReplicaLost()), usage=NO_USAGE, tail=[], now=NOW)
        assert await store.run_log.finish(me, ending)
        await store.replicas.leave(me)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []

    async def test_a_request_to_cancel_comes_with_the_adopted_run(self, store: Store) -> None:
        began, me = await a_begun_run(store), await _joined(store)
        async with store.unit_of_work() as work:
            await work.runs.request_cancel(began.run.run_id, began.caller)
            await work.commit()
        await store.replicas.leave(began.replica_id)
        [(run, _)] = await store.replicas.adopt_orphans(me, [], 10)
        assert run.cancel_requested

    async def test_runs_of_a_living_replica_are_left_alone(self, store: Store) -> None:
        await a_begun_run(store)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []

    async def test_ended_runs_are_left_alone(self, store: Store) -> None:
        began = await a_begun_run(store)
        ending = end(began.run, began.answer, Cancelled(), usage=NO_USAGE, tail=[], now=NOW)
        await store.run_log.finish(began.replica_id, ending)
        await store.replicas.leave(began.replica_id)
        assert await store.replicas.adopt_orphans(await _joined(store), [], 10) == []

    async def test_an_unattended_run_of_ones_own_is_adopted_once_its_begin_is_long_past(self, store: Store) -> None:
        forgotten = await a_begun_run(store)
        attended = await a_begun_run(store, forgotten.replica_id)
        me, mine = forgotten.replica_id, [attended.run.run_id]
        assert await store.replicas.adopt_orphans(me, mine, 10) == []
        await store.pass_time(PAST_COMMIT)
        [(run, _)] = await store.replicas.adopt_orphans(me, mine, 10)
        assert run == forgotten.run
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

    async def test_no_more_are_adopted_than_asked_for(self, store: Store) -> None:
        first = await a_begun_run(store)
        await a_begun_run(store, first.replica_id)
        await store.replicas.leave(first.replica_id)
        assert len(await store.replicas.adopt_orphans(await _joined(store), [], 1)) == 1


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

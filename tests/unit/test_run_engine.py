"""The engine: which runs a replica makes, from its joining to its leaving, and whose runs it goes on with."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest

from application import run_engine
from application.ports.event_bus import OrphansLeft
from application.ports.run_log import Survey
from domain.conversation import Message, MessageStatus
from domain.errors import DatabaseUnavailable, ReplicaDraining, ReplicaFenced
from domain.run import AttemptReset, Cancelled, Completed, Failed, FinishReason, Run, RunState
from tests.fakes.database import FakeDatabase
from tests.fakes.replica_registry import FakeReplicaRegistry
from tests.unit.replica import Network, Replica, Watcher
from tests.unit.waiting import settled, until

pytestmark = pytest.mark.usefixtures("_patient")

LOST = Failed("REPLICA_LOST", "the server that wrote this answer stopped")


class SlowRegistry(FakeReplicaRegistry):
    """Answers calls to join and to adopt only once `answers` is set."""

    def __init__(self, database: FakeDatabase) -> None:
        super().__init__(database)
        self.answers = asyncio.Event()
        self.answers.set()

    async def join(self, replica_id: UUID) -> None:
        await self.answers.wait()
        await super().join(replica_id)

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        adopted = await super().adopt_orphans(replica_id, attended, limit)
        await self.answers.wait()
        return adopted


async def left_behind(database: FakeDatabase, *pieces: str) -> tuple[Replica, UUID]:
    """Returns a replica that died in the middle of a run, and the run, after the lease has run out."""
    dead = Replica(database)
    async with dead.at_work():
        watcher = await (dead.heard(*pieces) if pieces else dead.asked())
    database.clock.advance(seconds=11)
    return dead, watcher.run_id


@asynccontextmanager
async def an_heir(database: FakeDatabase, network: Network | None = None) -> AsyncIterator[Replica]:
    """A replica that has looked for orphans once."""
    async with Replica(database, network).at_work() as heir:
        await heir.engine.adopt_orphans()
        yield heir


async def answers_all(replica: Replica, number: int, *pieces: str) -> None:
    """Lets the model say a whole answer in its first call, or in a later one."""
    call = await replica.call(number)
    call.say(*pieces)
    call.finish()


async def time_passes(seconds: int, *replicas: Replica) -> None:
    """Lets time go by while these replicas look after their leases."""
    for _ in range(seconds):
        replicas[0].clock.advance(seconds=1)
        for replica in replicas:
            await replica.beat()


# A replica that loses its lease


async def test_a_fenced_replica_s_models_are_closed(replica: Replica) -> None:
    await replica.heard("It wi")
    await replica.fenced()
    await until(lambda: replica.model.calls[0].closed)
    assert not replica.engine.running


async def test_a_fenced_replica_s_watchers_end_with_their_cursor(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    await replica.fenced()
    error = await watcher.ended_with(ReplicaFenced)
    assert error.metadata == {"run_id": str(watcher.run_id), "last_seq": "2"}


async def test_a_fenced_replica_has_shown_nothing_that_the_log_has_not(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    await replica.registry.leave(replica.engine.replica_id)
    (await replica.call()).say("ll not be seen")
    await watcher.ended_with(ReplicaFenced)
    assert watcher.seen == replica.logged(watcher.run_id)
    assert watcher.text == "It wi"


async def test_an_end_that_meets_the_fence_ends_the_watchers(replica: Replica) -> None:
    watcher = await replica.asked()
    await replica.registry.leave(replica.engine.replica_id)
    (await replica.call()).finish()
    await watcher.ended_with(ReplicaFenced)
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_a_fenced_replica_goes_on_under_a_new_id(replica: Replica) -> None:
    old = replica.engine.replica_id
    assert await replica.fenced() != old
    watcher = await replica.answered("Yes.")
    assert replica.run(watcher.run_id).owner == replica.engine.replica_id
    assert watcher.text == "Yes."


async def test_a_replica_may_be_fenced_again_and_again(replica: Replica) -> None:
    ids = {await replica.fenced() for _ in range(5)}
    assert len(ids) == 5
    assert (await replica.answered("Yes.")).text == "Yes."


async def test_a_run_that_was_fenced_before_its_first_step_is_forgotten(replica: Replica) -> None:
    await replica.registry.leave(replica.engine.replica_id)
    await replica.beat()
    replica.started()
    await until(lambda: not replica.engine.running)
    assert not replica.model.calls


async def test_a_lease_that_is_renewed_in_time_is_kept(replica: Replica) -> None:
    old = replica.engine.replica_id
    await time_passes(30, replica)
    assert (await replica.answered("Yes.")).text == "Yes."
    assert replica.engine.replica_id == old


async def test_a_replica_that_has_not_joined_yet_has_no_lease_to_lose(database: FakeDatabase) -> None:
    replica = Replica(database)
    before = replica.engine.replica_id
    database.clock.advance(seconds=60)
    await replica.engine.check_lease()
    async with replica.at_work():
        await settled()
        assert replica.engine.replica_id == before


async def test_a_silent_database_ends_the_watchers_and_not_the_runs(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.clock.advance(seconds=5.5)
    await replica.engine.check_lease()
    error = await watcher.ended_with(DatabaseUnavailable)
    assert error.metadata == {"run_id": str(watcher.run_id), "last_seq": "2"}
    await replica.beat()
    again = await replica.watch(replica.caller, watcher.run_id, 2)
    await answers_all(replica, 1, "ll.")
    await again.all()
    assert [*watcher.seen, *again.seen] == replica.logged(watcher.run_id)


async def test_a_replica_stops_itself_before_others_may_take_over(replica: Replica, other: Replica) -> None:
    watcher = await replica.heard("It wi")
    old = replica.engine.replica_id
    await time_passes(1, other)
    replica.clock.advance(seconds=7)
    await replica.engine.check_lease()
    await until(lambda: replica.model.calls[0].closed)
    await other.beat()
    assert await replica.joined() != old
    await watcher.ended_with(ReplicaFenced)


async def test_what_a_replica_gave_up_by_itself_is_taken_over_at_once(replica: Replica, other: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.clock.advance(seconds=7)
    await other.beat()
    await replica.engine.check_lease()
    await until(lambda: replica.database.tables.replicas[replica.run(watcher.run_id).owner].fenced)
    await other.engine.adopt_orphans()
    assert replica.run(watcher.run_id).owner == other.engine.replica_id
    assert replica.run(watcher.run_id).crashes == 1


async def test_a_replica_whose_main_loop_stands_still_is_replaced(replica: Replica, other: Replica) -> None:
    watcher = await replica.heard("It wi")
    for _ in range(32):
        replica.clock.advance(seconds=1)
        await replica.lease.renew(replica.registry)
        await other.beat()
    await other.engine.adopt_orphans()
    assert replica.run(watcher.run_id).owner == other.engine.replica_id
    await replica.engine.check_lease()
    await watcher.ended_with(ReplicaFenced)
    await replica.joined()
    assert (await replica.answered("Yes.")).text == "Yes."


async def test_a_fenced_replica_s_text_is_in_no_answer(replica: Replica, other: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.log.flowing.clear()
    (await replica.call()).say("ll rain frogs")
    await settled()
    await replica.registry.leave(replica.engine.replica_id)
    await other.engine.adopt_orphans()
    await answers_all(other, 1, "No", " rain.")
    replica.log.flowing.set()
    await watcher.ended_with(ReplicaFenced)
    await other.has_ended(watcher.run_id)
    assert [event.attempt for event in other.logged(watcher.run_id)][:3] == [1, 1, 2]
    assert other.message(watcher.run_id).content == other.text(watcher.run_id) == "No rain."


async def test_a_fenced_replica_s_end_is_not_the_run_s(replica: Replica, other: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.log.flowing.clear()
    (await replica.call()).finish()
    await settled()
    await replica.registry.leave(replica.engine.replica_id)
    await other.engine.adopt_orphans()
    replica.log.flowing.set()
    await watcher.ended_with(ReplicaFenced)
    assert other.run(watcher.run_id).state is RunState.RUNNING
    await answers_all(other, 1, "No.")
    await other.has_ended(watcher.run_id)
    assert other.message(watcher.run_id).content == "No."


async def test_a_replica_may_take_back_under_its_new_id_what_it_lost(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    call = await replica.call()
    call.may_close.clear()
    await replica.fenced()
    await replica.engine.adopt_orphans()
    again = await replica.watch(replica.caller, watcher.run_id)
    second = await replica.call(2)
    second.say("No", ".")
    await until(lambda: replica.text(watcher.run_id) == "No.")
    call.may_close.set()
    await until(lambda: call.closed)
    await settled()
    assert replica.engine.makes(watcher.run_id)
    second.finish()
    await again.all()
    assert again.seen == replica.logged(watcher.run_id)
    assert replica.message(watcher.run_id).content == "No."


# A run that begins


async def test_no_run_is_begun_before_the_database_knows_the_replica(database: FakeDatabase) -> None:
    replica = Replica(database)
    conversation = await replica.conversation()
    asking = asyncio.create_task(replica.ask(conversation))
    await settled()
    assert not database.tables.runs
    async with replica.at_work():
        await (await asking).next()
        assert [run.owner for run in database.tables.runs.values()] == [replica.engine.replica_id]


async def test_a_replica_that_cannot_join_takes_no_runs(
    database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_engine, "JOIN_SECONDS", 0)
    with pytest.raises(DatabaseUnavailable):
        await Replica(database).ask()


async def test_a_replica_joins_as_soon_as_the_database_answers(database: FakeDatabase) -> None:
    replica = Replica(database)
    replica.registry.unavailable = 3
    async with replica.at_work():
        assert (await replica.answered("Yes.")).text == "Yes."


async def test_a_begin_that_was_committed_unheard_starts_its_run_once(replica: Replica) -> None:
    conversation = await replica.conversation()
    replica.unit_of_work.lost_replies = [True]
    watcher = await replica.ask(conversation)
    await answers_all(replica, 1, "Yes.")
    await watcher.all()
    assert watcher.seen == replica.logged(watcher.run_id)
    assert len(replica.model.calls) == len(replica.database.tables.runs) == 1


async def test_a_begin_that_was_not_committed_is_no_run(replica: Replica) -> None:
    conversation = await replica.conversation()
    replica.unit_of_work.lost_replies = [False]
    with pytest.raises(DatabaseUnavailable):
        await replica.ask(conversation)
    await settled()
    assert not replica.database.tables.runs
    assert not replica.model.calls
    assert not replica.hub.watched


class AwayForAWhile:
    """Stands for the log's survey while the database is away; it answers once `back` is set."""

    def __init__(self, replica: Replica) -> None:
        self.back = asyncio.Event()
        self.asked = 0
        self._survey = replica.log.survey

    async def __call__(self, replica_id: UUID, watched: Collection[tuple[UUID, UUID]]) -> Survey:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.back.is_set():
            raise DatabaseUnavailable
        return await self._survey(replica_id, watched)


@pytest.fixture
def away(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> AwayForAWhile:
    away = AwayForAWhile(replica)
    monkeypatch.setattr(replica.log, "survey", away)
    return away


async def begun_unheard(replica: Replica, away: AwayForAWhile) -> asyncio.Task[Watcher]:
    """Returns the call that does not know whether its run was committed: it was."""
    conversation = await replica.conversation()
    replica.unit_of_work.lost_replies = [True]
    asking = asyncio.create_task(replica.ask(conversation))
    await until(lambda: away.asked)
    return asking


async def test_whether_a_begin_was_committed_is_asked_until_the_database_is_back(
    replica: Replica, away: AwayForAWhile
) -> None:
    asking = await begun_unheard(replica, away)
    await until(lambda: away.asked > 3)
    away.back.set()
    watcher = await asking
    await answers_all(replica, 1, "Yes.")
    await watcher.all()
    assert len(replica.model.calls) == 1


async def test_whoever_waits_to_hear_of_a_commit_holds_no_transaction(replica: Replica, away: AwayForAWhile) -> None:
    asking = await begun_unheard(replica, away)
    assert not replica.database.turn.locked()
    away.back.set()
    await asking


async def test_a_begin_in_flight_is_no_orphan_however_long_it_takes(replica: Replica, away: AwayForAWhile) -> None:
    asking = await begun_unheard(replica, away)
    await time_passes(15, replica)
    await replica.engine.adopt_orphans()
    away.back.set()
    watcher = await asking
    await answers_all(replica, 1, "Yes.")
    await watcher.all()
    assert replica.run(watcher.run_id).attempt == 1
    assert len(replica.model.calls) == 1


async def test_a_run_that_was_stored_and_given_up_is_made_ten_seconds_later(
    replica: Replica, away: AwayForAWhile
) -> None:
    asking = await begun_unheard(replica, away)
    replica.clock.advance(seconds=5.5)
    with pytest.raises(DatabaseUnavailable):
        await asking
    [run] = replica.database.tables.runs.values()
    await replica.beat()
    await replica.engine.adopt_orphans()
    assert not replica.model.calls
    await time_passes(5, replica)
    await replica.engine.adopt_orphans()
    await answers_all(replica, 1, "Yes.")
    ended = await replica.has_ended(run.run_id)
    assert (ended.attempt, ended.crashes, replica.message(run.run_id).content) == (2, 1, "Yes.")


async def test_a_run_begun_under_the_old_id_is_not_made_twice_under_the_new_one(
    replica: Replica, away: AwayForAWhile
) -> None:
    asking = await begun_unheard(replica, away)
    await replica.fenced()
    await replica.engine.adopt_orphans()
    call = await replica.call()
    away.back.set()
    watcher = await asking
    call.say("Yes.")
    call.finish()
    await watcher.all()
    assert watcher.seen == replica.logged(watcher.run_id)
    assert isinstance(watcher.seen[1].body, AttemptReset)
    assert len(replica.model.calls) == 1


async def test_a_run_that_is_begun_while_its_replica_loses_the_lease_is_an_orphan(replica: Replica) -> None:
    conversation = await replica.conversation()
    async with replica.database.turn:
        asking = asyncio.create_task(replica.ask(conversation))
        await settled()
        await replica.fenced()
    watcher = await asking
    await settled()
    assert not replica.model.calls
    await replica.engine.adopt_orphans()
    await answers_all(replica, 1, "Yes.")
    await watcher.all()
    assert watcher.seen == replica.logged(watcher.run_id)


async def test_waiting_for_a_run_of_nobody_returns_at_once(replica: Replica) -> None:
    await replica.engine.wait_ended(UUID(int=0))


# Runs whose replica died


@pytest.mark.parametrize("pieces", [(), ("It", " wi")], ids=["without text", "with text"])
async def test_an_orphan_is_answered_anew(database: FakeDatabase, pieces: Sequence[str]) -> None:
    _, run_id = await left_behind(database, *pieces)
    async with an_heir(database) as heir:
        await answers_all(heir, 1, "No", " rain.")
        run, events = await heir.has_ended(run_id), heir.logged(run_id)
        [place] = [place for place, event in enumerate(events) if isinstance(event.body, AttemptReset)]
        assert [event.attempt for event in events] == [1] * place + [2] * (len(events) - place)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[place].body == AttemptReset("REPLICA_LOST")
        assert heir.text(run_id) == heir.message(run_id).content == "No rain."
        assert (run.state, run.attempt, run.crashes) == (RunState.COMPLETED, 2, 1)


async def test_the_next_attempt_is_asked_the_same(database: FakeDatabase) -> None:
    dead = Replica(database)
    async with dead.at_work():
        conversation = await dead.conversation()
        first = await dead.ask(conversation, "One?")
        await answers_all(dead, 1, "1")
        await first.all()
        await dead.ask(conversation, "Two?", temperature=0.5, max_output_tokens=9)
        asked = (await dead.call(2)).request
    database.clock.advance(seconds=11)
    async with an_heir(database) as heir:
        assert (await heir.call()).request == asked


async def test_whoever_watches_an_orphan_where_it_is_adopted_sees_all_of_it(database: FakeDatabase) -> None:
    dead, run_id = await left_behind(database, "It wi")
    async with Replica(database).at_work() as heir:
        watcher = await heir.watch(dead.caller, run_id, 1)
        await watcher.next()
        watching = asyncio.create_task(watcher.all())
        await settled()
        await heir.engine.adopt_orphans()
        await until(lambda: len(watcher.seen) == 2)
        assert watcher.seen[-1].body == AttemptReset("REPLICA_LOST")
        await answers_all(heir, 1, "No.")
        assert await watching == heir.logged(run_id)[1:]


async def test_a_run_under_which_three_replicas_died_is_ended_with_its_text(database: FakeDatabase) -> None:
    dead, run_id = await left_behind(database, "It wi")
    for text in ("Per", "May"):
        async with an_heir(database) as heir:
            (await heir.call()).say(text)
            await until(lambda text=text, heir=heir: heir.text(run_id) == text)  # type: ignore[misc]
        database.clock.advance(seconds=11)
    async with Replica(database).at_work() as last:
        watcher = await last.watch(dead.caller, run_id, 1)
        await last.engine.adopt_orphans()
        await watcher.all()
        run, message = last.run(run_id), last.message(run_id)
        assert (run.failure, run.attempt, run.crashes) == (LOST, 3, 3)
        assert (message.content, message.status) == ("May", MessageStatus.INCOMPLETE)
        assert watcher.seen == last.logged(run_id)[1:]
        assert not last.model.calls


async def test_a_run_under_which_three_replicas_died_without_a_word_has_failed(database: FakeDatabase) -> None:
    _, run_id = await left_behind(database)
    database.tables.runs[run_id] = replace(database.tables.runs[run_id], crashes=2)
    async with an_heir(database) as heir:
        await heir.has_ended(run_id)
        assert heir.message(run_id).status is MessageStatus.FAILED


async def test_an_orphan_that_was_to_be_cancelled_is_cancelled(database: FakeDatabase) -> None:
    dead, run_id = await left_behind(database, "It wi")
    await dead.chat.cancel(dead.caller, run_id)
    async with an_heir(database) as heir:
        await heir.has_ended(run_id)
        assert heir.logged(run_id)[-1].body == Cancelled()
        message = heir.message(run_id)
        assert (message.content, message.status) == ("It wi", MessageStatus.CANCELLED)
        assert not heir.model.calls


async def test_a_run_of_a_living_replica_is_no_orphan(replica: Replica, other: Replica) -> None:
    watcher = await replica.asked()
    await other.engine.adopt_orphans()
    assert replica.run(watcher.run_id).attempt == 1


async def test_a_run_that_is_being_made_here_is_no_orphan(replica: Replica) -> None:
    watcher = await replica.asked()
    await time_passes(60, replica)
    await replica.engine.adopt_orphans()
    assert replica.run(watcher.run_id).attempt == 1


async def test_of_two_heirs_one_goes_on_with_a_run(database: FakeDatabase, replica: Replica, other: Replica) -> None:
    _, run_id = await left_behind(database)
    for heir in (replica, other):
        await heir.registry.join(heir.engine.replica_id)
    await asyncio.gather(replica.engine.adopt_orphans(), other.engine.adopt_orphans())
    await settled()
    assert len(replica.model.calls) + len(other.model.calls) == 1
    assert replica.run(run_id).attempt == 2


async def test_orphans_are_taken_in_a_few_at_a_time(database: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_engine, "ADOPTION_LIMIT", 2)
    for _ in range(3):
        await left_behind(database)
    async with an_heir(database) as heir:
        found = [(heir.engine.running, heir.engine.look_for_orphans.is_set())]
        await heir.engine.adopt_orphans()
        found.append((heir.engine.running, heir.engine.look_for_orphans.is_set()))
        assert found == [(2, True), (3, False)]


async def test_a_replica_that_makes_enough_runs_adopts_none(
    database: FakeDatabase, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_behind(database)
    await replica.registry.join(replica.engine.replica_id)
    await replica.asked()
    monkeypatch.setattr(run_engine, "RUNS_LIMIT", 1)
    await replica.engine.adopt_orphans()
    assert replica.engine.running == 1
    assert not replica.engine.look_for_orphans.is_set()


async def test_a_replica_looks_for_orphans_as_soon_as_it_has_joined(replica: Replica) -> None:
    assert replica.engine.look_for_orphans.is_set()


async def test_an_heir_that_is_fenced_itself_ends_nothing(database: FakeDatabase) -> None:
    _, run_id = await left_behind(database, "It wi")
    database.tables.runs[run_id] = replace(database.tables.runs[run_id], crashes=2)
    async with Replica(database).at_work() as heir:
        heir.log.flowing.clear()
        await heir.engine.adopt_orphans()
        await heir.registry.leave(heir.engine.replica_id)
        heir.log.flowing.set()
        await settled()
    assert heir.run(run_id).state is RunState.RUNNING


async def test_what_was_adopted_under_a_lost_lease_is_not_made(database: FakeDatabase) -> None:
    _, run_id = await left_behind(database)
    registry = SlowRegistry(database)
    async with Replica(database, registry=registry).at_work() as heir:
        registry.answers.clear()
        adopting = asyncio.create_task(heir.engine.adopt_orphans())
        await settled()
        lost = heir.engine.replica_id
        await registry.leave(lost)
        await heir.beat()
        await until(lambda: heir.engine.replica_id != lost)
        registry.answers.set()
        await adopting
        assert not heir.engine.makes(run_id)
        await heir.joined()
        await heir.engine.adopt_orphans()
        assert heir.engine.running == 1
        assert heir.run(run_id).attempt == 3


# A replica that stops


async def test_a_draining_replica_takes_no_runs(replica: Replica) -> None:
    await replica.engine.drain(0)
    with pytest.raises(ReplicaDraining):
        await replica.ask()


async def test_a_draining_replica_adopts_no_runs(database: FakeDatabase, replica: Replica) -> None:
    await left_behind(database)
    await replica.registry.join(replica.engine.replica_id)
    await replica.engine.drain(0)
    await replica.engine.adopt_orphans()
    assert not replica.engine.running


async def test_a_drain_waits_for_the_runs(replica: Replica) -> None:
    watcher = await replica.asked()
    draining = asyncio.create_task(replica.engine.drain(60))
    await settled()
    assert not draining.done()
    await answers_all(replica, 1, "Yes.")
    await draining
    assert replica.run(watcher.run_id).state is RunState.COMPLETED


async def test_a_drain_waits_for_a_run_that_is_just_being_begun(replica: Replica) -> None:
    conversation = await replica.conversation()
    async with replica.database.turn:
        asking = asyncio.create_task(replica.ask(conversation))
        await settled()
        draining = asyncio.create_task(replica.engine.drain(60))
        await settled()
        assert not draining.done()
    watcher = await asking
    await answers_all(replica, 1)
    await draining
    assert isinstance((await watcher.all())[-1].body, Completed)


async def test_a_drain_of_an_idle_replica_ends_at_once(replica: Replica) -> None:
    await replica.engine.drain(3600)


async def leaves(replica: Replica) -> None:
    await replica.engine.drain(0)
    await replica.engine.hand_over()


async def test_a_run_that_is_handed_over_goes_on_elsewhere_at_once(replica: Replica, other: Replica) -> None:
    watcher = await replica.heard("It wi")
    other.engine.look_for_orphans.clear()
    await leaves(replica)
    await until(other.engine.look_for_orphans.is_set)
    await other.engine.adopt_orphans()
    again = await other.watch(replica.caller, watcher.run_id, 2)
    assert (await again.next()).body == AttemptReset("REPLICA_DRAINING")
    await answers_all(other, 1, "No.")
    await again.all()
    assert again.seen == other.logged(watcher.run_id)[2:]
    assert other.run(watcher.run_id).crashes == 0


async def test_who_leaves_tells_the_others_before_it_has_left(replica: Replica, other: Replica) -> None:
    await leaves(replica)
    assert replica.bus.sent == [(other.engine.replica_id, OrphansLeft())]


async def test_a_run_that_is_handed_over_is_not_ended(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    await leaves(replica)
    assert (await replica.call()).closed
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_watchers_of_a_run_that_is_handed_over_are_told_where_to_go_on(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    await leaves(replica)
    error = await watcher.ended_with(ReplicaDraining)
    assert error.metadata == {"run_id": str(watcher.run_id), "last_seq": "2"}


async def test_watchers_of_runs_made_elsewhere_are_told_where_to_go_on(replica: Replica, other: Replica) -> None:
    made = await replica.heard("It wi")
    watcher = await other.watch(replica.caller, made.run_id)
    await watcher.next()
    await watcher.next()
    await leaves(other)
    error = await watcher.ended_with(ReplicaDraining)
    assert error.metadata == {"run_id": str(made.run_id), "last_seq": "2"}
    assert replica.engine.makes(made.run_id)


async def test_whoever_comes_to_a_replica_that_has_left_is_told_where_to_go_on(replica: Replica) -> None:
    made = await replica.heard("It wi")
    await leaves(replica)
    late = await replica.watch(replica.caller, made.run_id)
    await late.ended_with(ReplicaDraining)
    assert late.seen == replica.logged(made.run_id)


async def test_an_ended_run_is_shown_whole_by_a_replica_that_has_left(replica: Replica) -> None:
    made = await replica.answered("Yes.")
    await leaves(replica)
    late = await replica.watch(replica.caller, made.run_id)
    assert await late.all() == replica.logged(made.run_id)


async def test_a_run_whose_end_is_being_written_is_not_handed_over(replica: Replica) -> None:
    watcher = await replica.heard("Yes.")
    replica.log.flowing.clear()
    (await replica.call()).finish()
    await settled()
    leaving = asyncio.create_task(leaves(replica))
    await settled()
    replica.log.flowing.set()
    await leaving
    last = (await watcher.all())[-1].body
    assert isinstance(last, Completed)
    assert last.finish_reason is FinishReason.STOP


async def test_a_replica_that_left_is_fenced_and_renews_no_lease(replica: Replica) -> None:
    await leaves(replica)
    lease = replica.database.tables.replicas[replica.engine.replica_id]
    assert (lease.fenced, lease.retired, replica.lease.replica_id) == (True, True, None)


async def test_a_replica_that_leaves_while_the_database_is_away_still_tells_its_watchers(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.registry.unavailable = 1
    await leaves(replica)
    await watcher.ended_with(ReplicaDraining)
    assert replica.lease.replica_id is None


async def test_a_run_that_is_begun_while_its_replica_leaves_is_made_elsewhere(replica: Replica, other: Replica) -> None:
    conversation = await replica.conversation()
    async with replica.database.turn:
        asking = asyncio.create_task(replica.ask(conversation))
        await settled()
        leaving = asyncio.create_task(leaves(replica))
        await settled()
    await leaving
    watcher = await asking
    error = await watcher.ended_with(ReplicaDraining)
    assert error.metadata["last_seq"] == "1"
    assert not replica.model.calls
    await other.engine.adopt_orphans()
    await answers_all(other, 1, "Yes.")
    assert (await other.has_ended(watcher.run_id)).state is RunState.COMPLETED


async def test_a_run_that_is_adopted_while_its_heir_leaves_is_made_by_another(
    database: FakeDatabase, other: Replica
) -> None:
    _, run_id = await left_behind(database)
    await other.registry.join(other.engine.replica_id)
    registry = SlowRegistry(database)
    async with Replica(database, registry=registry).at_work() as heir:
        registry.answers.clear()
        adopting = asyncio.create_task(heir.engine.adopt_orphans())
        await settled()
        await leaves(heir)
        registry.answers.set()
        await adopting
        assert not heir.engine.running
    await other.engine.adopt_orphans()
    assert other.engine.makes(run_id)


async def test_a_replica_that_has_left_does_not_come_back(replica: Replica) -> None:
    await leaves(replica)
    replica.started()
    replica.engine._writer.fence()
    await settled()
    assert len(replica.database.tables.replicas) == 1


async def test_a_draining_replica_that_is_fenced_does_not_come_back(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    draining = asyncio.create_task(replica.engine.drain(60))
    await settled()
    await replica.registry.leave(replica.engine.replica_id)
    await replica.beat()
    await draining
    await watcher.ended_with(ReplicaFenced)
    await replica.engine.hand_over()
    assert len(replica.database.tables.replicas) == 1


async def test_a_replica_that_leaves_before_it_has_joined_takes_no_lease(database: FakeDatabase) -> None:
    registry = SlowRegistry(database)
    registry.answers.clear()
    replica = Replica(database, registry=registry)
    writing = asyncio.create_task(replica.engine.write_log())
    await settled()
    await leaves(replica)
    registry.answers.set()
    await settled()
    assert replica.lease.replica_id is None
    writing.cancel()
    await asyncio.wait([writing])


async def test_leaving_needs_no_drain(replica: Replica) -> None:
    await replica.engine.hand_over()
    with pytest.raises(ReplicaDraining):
        await replica.ask()


# Whoever takes the run along


async def asked_by_one_who_takes_it_along(replica: Replica) -> Watcher:
    watcher = await replica.ask(cancel_on_disconnect=True)
    await watcher.next()
    return watcher


async def test_a_caller_whose_replica_is_fenced_does_not_cancel_the_run(replica: Replica, other: Replica) -> None:
    watcher = await asked_by_one_who_takes_it_along(replica)
    await replica.fenced()
    await watcher.ended_with(ReplicaFenced)
    await other.engine.adopt_orphans()
    await answers_all(other, 1, "Yes.")
    assert (await other.has_ended(watcher.run_id)).state is RunState.COMPLETED


async def test_a_caller_whose_replica_leaves_does_not_cancel_the_run(replica: Replica, other: Replica) -> None:
    watcher = await asked_by_one_who_takes_it_along(replica)
    await leaves(replica)
    await watcher.ended_with(ReplicaDraining)
    await other.engine.adopt_orphans()
    await answers_all(other, 1, "Yes.")
    assert (await other.has_ended(watcher.run_id)).state is RunState.COMPLETED


async def test_a_caller_who_is_sent_away_by_a_silent_database_does_not_cancel_the_run(replica: Replica) -> None:
    watcher = await asked_by_one_who_takes_it_along(replica)
    replica.clock.advance(seconds=5.5)
    await replica.engine.check_lease()
    await watcher.ended_with(DatabaseUnavailable)
    await replica.beat()
    await answers_all(replica, 1, "Yes.")
    assert (await replica.has_ended(watcher.run_id)).state is RunState.COMPLETED


async def test_a_caller_who_leaves_after_the_run_went_elsewhere_does_not_cancel_it(
    replica: Replica, other: Replica
) -> None:
    watcher = await asked_by_one_who_takes_it_along(replica)
    await replica.registry.leave(replica.engine.replica_id)
    await other.engine.adopt_orphans()
    await watcher.leave()
    await replica.beat()
    await answers_all(other, 1, "Yes.")
    assert (await other.has_ended(watcher.run_id)).state is RunState.COMPLETED

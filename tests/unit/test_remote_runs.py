"""Runs of other replicas: asked for, followed, cancelled and lost sight of, with the bus and without it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from uuid import UUID

import pytest

from application import audience
from application.ports.event_bus import BusMessage, CancelWanted, Interest, News, OrphansLeft
from application.ports.run_log import Survey
from application.remote_runs import RENEW_EVERY
from domain.errors import DatabaseUnavailable, ReplicaFenced, RunNotFound
from domain.run import AttemptReset, Cancelled, RunEvent, RunState
from tests.builders import an_event, new_id
from tests.fakes.database import FakeDatabase
from tests.unit.replica import Network, Replica, Watcher
from tests.unit.waiting import settled, until

pytestmark = pytest.mark.usefixtures("_patient")


class Gallery:
    """Where somebody watches runs of others."""

    def __init__(self, at: Replica) -> None:
        self.at = at
        self.tasks: list[asyncio.Task[Sequence[RunEvent]]] = []

    async def watch(self, maker: Replica, *pieces: str) -> Watcher:
        """Returns who watches a new run here that another replica makes, and has seen what its model said."""
        made = await maker.heard(*pieces)
        watcher = await self.at.watch(maker.caller, made.run_id)
        self.tasks.append(asyncio.create_task(watcher.all()))
        await until(lambda: watcher.text == "".join(pieces))
        await settled()
        return watcher

    async def empties(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)


@pytest.fixture
async def gallery(other: Replica) -> AsyncIterator[Gallery]:
    gallery = Gallery(other)
    yield gallery
    await gallery.empties()


def sent(replica: Replica, kind: type[BusMessage]) -> list[tuple[UUID, BusMessage]]:
    """What the replica has sent of this kind, and to whom."""
    return [(to, message) for to, message in replica.bus.sent if isinstance(message, kind)]


@pytest.fixture
async def third(database: FakeDatabase, network: Network) -> AsyncIterator[Replica]:
    async with Replica(database, network).at_work() as third:
        yield third


# Interest


async def test_whoever_begins_to_watch_asks_the_owner_at_once(
    replica: Replica, other: Replica, gallery: Gallery
) -> None:
    watcher = await gallery.watch(replica, "It ")
    interest = Interest(other.engine.replica_id, [watcher.run_id])
    assert sent(other, Interest) == [(replica.engine.replica_id, interest)]


async def test_who_watches_where_the_run_is_made_asks_nobody(replica: Replica) -> None:
    made = await replica.heard("It ")
    await (await replica.watch(replica.caller, made.run_id)).next()
    await settled()
    assert not replica.bus.sent


async def test_who_watches_an_ended_run_asks_nobody(replica: Replica, other: Replica) -> None:
    made = await replica.answered("Yes.")
    await (await other.watch(replica.caller, made.run_id)).all()
    await settled()
    assert not other.bus.sent


async def test_the_owner_tells_whoever_asks_how_far_the_run_is(
    replica: Replica, other: Replica, gallery: Gallery
) -> None:
    watcher = await gallery.watch(replica, "It ")
    assert sent(replica, News)[0] == (other.engine.replica_id, News((), [(watcher.run_id, 2)]))


async def test_what_was_written_before_the_owner_knew_of_a_watcher_is_shown(
    replica: Replica, gallery: Gallery, network: Network
) -> None:
    network.cut = True
    watcher = await gallery.watch(replica, "It ")
    (await replica.call()).say("will.")
    await replica.has_logged(watcher.run_id, 3)
    await settled()
    assert watcher.text == "It "
    network.cut = False
    gallery.at.remote.watch(replica.run(watcher.run_id))
    await until(lambda: watcher.text == "It will.")


async def test_nobody_else_is_told_of_a_run(replica: Replica, other: Replica, gallery: Gallery, third: Replica) -> None:
    await gallery.watch(replica, "It ")
    (await replica.call()).say("will.")
    await settled()
    assert {to for to, _ in sent(replica, News)} == {other.engine.replica_id}


async def test_interest_in_a_run_that_is_not_made_here_is_ignored(replica: Replica, other: Replica) -> None:
    other.audience.post(replica.engine.replica_id, Interest(other.engine.replica_id, [new_id()]))
    await settled()
    assert not replica.bus.sent
    assert not replica.audience._interested


async def test_interest_is_renewed_before_it_ends(
    replica: Replica, other: Replica, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gallery.watch(replica, "It ")
    asked = len(sent(other, Interest))
    for _ in range(3 * RENEW_EVERY):
        await other.remote.survey()
    await settled()
    assert len(sent(other, Interest)) == asked + 3
    assert RENEW_EVERY < audience.INTEREST_SECONDS / 2


async def test_interest_of_runs_with_one_owner_is_one_message(
    replica: Replica, other: Replica, gallery: Gallery
) -> None:
    runs = {(await gallery.watch(replica, f"{number} ")).run_id for number in range(3)}
    other.bus.sent.clear()
    for _ in range(RENEW_EVERY):
        await other.remote.survey()
    await settled()
    [(to, message)] = sent(other, Interest)
    assert isinstance(message, Interest)
    assert (to, set(message.run_ids)) == (replica.engine.replica_id, runs)


async def test_who_has_left_is_forgotten_by_the_owner(
    replica: Replica, other: Replica, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience, "INTEREST_SECONDS", -1.0)
    await gallery.watch(replica, "It ")
    await gallery.empties()
    (await replica.call()).say("will.")
    await settled()
    assert not replica.audience._interested


async def test_interest_that_comes_while_the_run_ends_is_forgotten_with_it(replica: Replica) -> None:
    made = await replica.heard("It ")
    replica.log.flowing.clear()
    (await replica.call()).finish()
    await settled()
    replica.log.flowing.set()
    while not replica.run(made.run_id).end_time:
        await asyncio.sleep(0)
        if replica.engine.makes(made.run_id):
            replica.remote._admit(Interest(new_id(), [made.run_id]))
    await until(lambda: not replica.engine.running)
    await settled()
    assert not replica.audience._interested


async def test_a_replica_never_asks_itself(database: FakeDatabase, replica: Replica) -> None:
    made = await replica.asked()
    replica.engine._generations.clear()
    await (await replica.watch(replica.caller, made.run_id)).next()
    for _ in range(RENEW_EVERY):
        await replica.remote.survey()
    await settled()
    assert not replica.bus.sent


# Surveys


async def test_a_survey_without_anything_to_ask_asks_nothing(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica.log, "survey", None)
    await replica.remote.survey()


async def test_a_survey_asks_only_for_runs_of_others(
    replica: Replica, other: Replica, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = await other.heard("Mine ")
    theirs = await gallery.watch(replica, "Theirs ")
    asked: list[Collection[tuple[UUID, UUID]]] = []
    survey = other.log.survey

    async def listened_to(replica_id: UUID, watched: Collection[tuple[UUID, UUID]]) -> Survey:
        asked.append(watched)
        return await survey(replica_id, watched)

    monkeypatch.setattr(other.log, "survey", listened_to)
    await other.remote.survey()
    assert asked == [[(replica.caller.workspace_id, theirs.run_id)]]
    assert other.engine.makes(mine.run_id)


async def test_a_survey_that_finds_nothing_new_wakes_nobody(replica: Replica, other: Replica, gallery: Gallery) -> None:
    watcher = await gallery.watch(replica, "It ")
    reads: list[int] = []
    read = other.log.read

    async def counted(workspace_id: UUID, run_id: UUID, after_seq: int) -> object:
        reads.append(after_seq)
        return await read(workspace_id, run_id, after_seq)

    other.log.read = counted  # type: ignore[method-assign, assignment]
    for _ in range(4):
        await other.remote.survey()
    await settled()
    assert not reads
    assert watcher.text == "It "


async def test_a_survey_finds_the_new_owner(replica: Replica, other: Replica, gallery: Gallery, third: Replica) -> None:
    watcher = await gallery.watch(replica, "It ")
    await replica.registry.leave(replica.engine.replica_id)
    await third.engine.adopt_orphans()
    await other.remote.survey()
    await until(lambda: isinstance(watcher.seen[-1].body, AttemptReset))
    assert sent(other, Interest)[-1][0] == third.engine.replica_id
    await settled()
    (await third.call()).say("No.")
    await until(lambda: watcher.text == "No.")


async def test_the_watchers_of_an_erased_run_are_told_so(
    replica: Replica, other: Replica, gallery: Gallery, network: Network
) -> None:
    watcher = await gallery.watch(replica, "It ")
    network.cut = True
    run = replica.run(watcher.run_id)
    await replica.conversations.delete(replica.caller, run.conversation_id)
    await replica.has_ended(watcher.run_id)
    await replica.housekeeping.tidy()
    await other.remote.survey()
    with pytest.raises(RunNotFound):
        await gallery.tasks[0]
    assert not other.hub.watched


async def test_a_survey_of_a_database_that_is_away_ends_nobody(
    replica: Replica, other: Replica, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = await gallery.watch(replica, "It ")

    async def unavailable(*_: object) -> Survey:
        raise DatabaseUnavailable

    monkeypatch.setattr(other.log, "survey", unavailable)
    with pytest.raises(DatabaseUnavailable):
        await other.remote.survey()
    (await replica.call()).say("will.")
    await until(lambda: watcher.text == "It will.")


async def test_who_left_is_not_surveyed_any_more(replica: Replica, other: Replica, gallery: Gallery) -> None:
    await gallery.watch(replica, "It ")
    await gallery.empties()
    await other.remote.survey()
    assert not other.hub.watched
    assert not other.remote._owners


# Cancelling


async def test_a_run_is_cancelled_from_another_replica_at_once(
    replica: Replica, other: Replica, gallery: Gallery
) -> None:
    watcher = await gallery.watch(replica, "It wi")
    run = await other.chat.cancel(replica.caller, watcher.run_id)
    assert run.cancel_requested
    await settled()
    assert sent(other, CancelWanted) == [(replica.engine.replica_id, CancelWanted(watcher.run_id))]
    assert (await gallery.tasks[0])[-1].body == Cancelled()
    assert (await replica.call()).closed
    assert replica.message(watcher.run_id).content == "It wi"


async def test_a_run_is_cancelled_from_another_replica_without_a_bus(
    replica: Replica, other: Replica, network: Network
) -> None:
    made = await replica.heard("It wi")
    network.cut = True
    await other.chat.cancel(replica.caller, made.run_id)
    await settled()
    assert replica.run(made.run_id).state is RunState.RUNNING
    await replica.remote.survey()
    assert (await replica.has_ended(made.run_id)).state is RunState.CANCELLED


async def test_a_deleted_conversation_s_runs_are_cancelled_wherever_they_are_made(
    replica: Replica, other: Replica
) -> None:
    made = await replica.heard("It wi")
    await other.conversations.delete(replica.caller, replica.run(made.run_id).conversation_id)
    assert (await replica.has_ended(made.run_id)).state is RunState.CANCELLED


async def test_a_deleted_conversation_s_runs_are_cancelled_without_a_bus(
    replica: Replica, other: Replica, network: Network
) -> None:
    made = await replica.heard("It wi")
    network.cut = True
    await other.conversations.delete(replica.caller, replica.run(made.run_id).conversation_id)
    await replica.remote.survey()
    assert (await replica.has_ended(made.run_id)).state is RunState.CANCELLED


async def test_a_run_whose_owner_died_is_cancelled_by_its_heir(replica: Replica, other: Replica) -> None:
    made = await replica.heard("It wi")
    await replica.registry.leave(replica.engine.replica_id)
    await other.chat.cancel(replica.caller, made.run_id)
    await other.engine.adopt_orphans()
    assert (await other.has_ended(made.run_id)).state is RunState.CANCELLED
    assert not other.model.calls


async def test_a_run_that_was_marked_while_it_was_adopted_is_cancelled_by_its_heir(
    replica: Replica, other: Replica
) -> None:
    made = await replica.heard("It wi")
    await replica.fenced()
    await other.engine.adopt_orphans()
    await replica.chat.cancel(replica.caller, made.run_id)
    other.bus.network.cut = True
    await other.remote.survey()
    assert (await other.has_ended(made.run_id)).state is RunState.CANCELLED


async def test_who_is_not_the_owner_cancels_nothing(replica: Replica, other: Replica) -> None:
    made = await replica.heard("It wi")
    other.audience.post(replica.engine.replica_id, CancelWanted(new_id()))
    other.engine.cancel(made.run_id)
    await settled()
    assert replica.engine.makes(made.run_id)


# Listening


async def test_news_of_runs_that_nobody_watches_are_ignored(replica: Replica, other: Replica) -> None:
    made = await replica.heard("It wi")
    news = News([an_event(replica.run(made.run_id), 3, "x")], [(made.run_id, 9)])
    replica.audience.post(other.engine.replica_id, news)
    await settled()
    assert not other.hub.watched


async def test_who_hears_of_orphans_looks_for_them(replica: Replica, other: Replica) -> None:
    other.engine.look_for_orphans.clear()
    replica.audience.post(other.engine.replica_id, OrphansLeft())
    await until(other.engine.look_for_orphans.is_set)


async def test_a_replica_listens_under_its_new_id(replica: Replica, other: Replica, gallery: Gallery) -> None:
    old = other.engine.replica_id
    new = await other.fenced()
    assert not other.network.listens(old)
    watcher = await gallery.watch(replica, "It ")
    assert sent(replica, News)[-1][0] == new
    (await replica.call()).say("will.")
    await until(lambda: watcher.text == "It will.")


async def test_a_fenced_owner_tells_nobody_any_more(replica: Replica, other: Replica, gallery: Gallery) -> None:
    await gallery.watch(replica, "It ")
    await replica.fenced()
    assert not replica.audience._interested


async def test_a_fenced_replica_s_watchers_of_others_runs_are_sent_away(
    replica: Replica, other: Replica, gallery: Gallery
) -> None:
    watcher = await gallery.watch(replica, "It ")
    await other.fenced()
    with pytest.raises(ReplicaFenced):
        await gallery.tasks[0]
    assert replica.engine.makes(watcher.run_id)


async def test_a_replica_that_cannot_join_goes_on_trying_to_listen(
    database: FakeDatabase, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("application.run_engine.JOIN_SECONDS", 0)
    replica = Replica(database, network)
    replica.registry.unavailable = 20
    async with replica.at_work():
        assert network.listens(replica.engine.replica_id)

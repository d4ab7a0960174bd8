"""Watchers see every event once, in order, from any cursor, whatever the hub, the bus and the log's pages are like."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from application.hub import QUEUE_LIMIT, Hub, Subscription
from application.ports.event_bus import BusMessage
from application.ports.run_log import LogPage
from application.watching import Watching
from domain.errors import DatabaseUnavailable, ReplicaDraining, RunNotFound
from domain.run import Cancelled, RunEvent
from tests.builders import a_conversation, a_run, a_start, an_answer, an_event
from tests.fakes.database import FakeDatabase
from tests.fakes.run_log import PAGE_BYTES, FakeRunLog
from tests.unit.replica import Network, Replica, Watcher
from tests.unit.waiting import settled, until

pytestmark = pytest.mark.usefixtures("_patient")


class Window:
    """One run with a log and a hub that the test fills by hand, and somebody who looks in."""

    def __init__(self) -> None:
        conversation = a_conversation()
        self.run = a_run(conversation, an_answer(conversation))
        self.database = FakeDatabase()
        self.log = FakeRunLog(self.database)
        self.hub = Hub()
        self.watching = Watching(self.log, self.hub)
        self.append(1, 1)

    def event(self, seq: int, last: int = 0) -> RunEvent:
        if seq == 1:
            return a_start(self.run)
        return an_event(self.run, seq, Cancelled() if seq == last else f"{seq} ")

    def append(self, first: int, to: int, last: int = 0) -> Sequence[RunEvent]:
        """Puts events into the log, and returns them."""
        events = [self.event(seq, last) for seq in range(first, to + 1)]
        self.database.tables.events.update({(event.run_id, event.seq): event for event in events})
        return events

    def watch(self, after_seq: int = 0, *known: RunEvent) -> tuple[Watcher, Subscription]:
        """Looks in as `Chat` does; the log goes up to what the run says now."""
        run = replace(self.run, last_seq=self.database.tables.last_seq(self.run.run_id))
        subscription = self.hub.subscribe(run)
        return Watcher(self.watching.follow(run, subscription, known, after_seq)), subscription


@pytest.fixture
def window() -> Window:
    return Window()


def seqs(watcher: Watcher) -> list[int]:
    return [event.seq for event in watcher.seen]


async def looks(watcher: Watcher) -> asyncio.Task[Sequence[RunEvent]]:
    """Looks as far as there is something to see, and on as a task."""
    looking = asyncio.create_task(watcher.all())
    await settled()
    return looking


# Log and hub


@pytest.mark.parametrize("after_seq", range(8))
async def test_an_ended_run_is_replayed_from_any_cursor(window: Window, after_seq: int) -> None:
    window.append(2, 9, last=9)
    watcher, _ = window.watch(after_seq)
    await watcher.all()
    assert seqs(watcher) == list(range(after_seq + 1, 10))


async def test_a_long_log_is_read_in_pages(window: Window) -> None:
    window.append(2, 1_203, last=1_203)
    watcher, _ = window.watch()
    await watcher.all()
    assert seqs(watcher) == list(range(1, 1_204))


async def test_a_log_of_big_events_is_read_in_pages(window: Window) -> None:
    big = [an_event(window.run, seq, "x" * PAGE_BYTES) for seq in range(2, 6)]
    window.database.tables.events.update({(event.run_id, event.seq): event for event in big})
    window.append(6, 6, last=6)
    watcher, _ = window.watch()
    await watcher.all()
    assert seqs(watcher) == list(range(1, 7))


async def test_a_long_replay_ends_with_its_page_when_the_replica_stops(window: Window) -> None:
    window.append(2, 1_203, last=1_203)
    watcher, _ = window.watch()
    await watcher.next()
    window.hub.close(ReplicaDraining)
    with pytest.raises(ReplicaDraining) as refused:
        await watcher.all()
    assert seqs(watcher) == list(range(1, 501))
    assert refused.value.metadata["last_seq"] == "500"


async def test_what_is_known_is_shown_without_asking_the_log(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window.log, "read", None)
    started = window.event(1)
    watcher, _ = window.watch(0, started)
    assert await watcher.next() == started
    window.hub.publish(window.append(2, 3, last=3))
    await watcher.all()
    assert seqs(watcher) == [1, 2, 3]


async def test_what_is_both_in_the_log_and_handed_over_is_shown_once(window: Window) -> None:
    window.append(2, 4)
    watcher, _ = window.watch()
    window.hub.publish(window.append(3, 7, last=7))
    await watcher.all()
    assert seqs(watcher) == list(range(1, 8))


async def test_a_gap_in_what_is_handed_over_is_filled_from_the_log(window: Window) -> None:
    watcher, _ = window.watch()
    looking = await looks(watcher)
    window.append(2, 5)
    window.hub.publish(window.append(6, 6))
    await settled()
    assert seqs(watcher) == list(range(1, 7))
    window.hub.publish(window.append(7, 7, last=7))
    await looking
    assert seqs(watcher) == list(range(1, 8))


async def test_a_last_event_behind_a_gap_waits_for_what_is_missing(window: Window) -> None:
    watcher, _ = window.watch()
    looking = await looks(watcher)
    window.append(2, 5)
    window.hub.publish(window.append(6, 6, last=6))
    await looking
    assert seqs(watcher) == list(range(1, 7))


async def test_late_and_repeated_events_are_not_shown_again(window: Window) -> None:
    watcher, _ = window.watch()
    looking = await looks(watcher)
    events = window.append(2, 6)
    for seq in (4, 2, 6, 3, 5, 6, 2):
        window.hub.publish([events[seq - 2]])
        await settled()
    assert seqs(watcher) == list(range(1, 7))
    looking.cancel()


async def test_an_announcement_is_looked_up_in_the_log(window: Window) -> None:
    watcher, _ = window.watch()
    looking = await looks(watcher)
    window.append(2, 4, last=4)
    window.hub.announce(window.run.run_id, 4)
    await looking
    assert seqs(watcher) == [1, 2, 3, 4]


async def test_an_end_that_is_only_announced_behind_the_last_text_is_seen(window: Window) -> None:
    watcher, _ = window.watch()
    looking = await looks(watcher)
    text, _ = window.append(2, 3, last=3)
    window.hub.publish([text])
    window.hub.announce(window.run.run_id, 3)
    await looking
    assert seqs(watcher) == [1, 2, 3]


async def test_a_watcher_that_is_slow_misses_nothing(window: Window) -> None:
    watcher, _ = window.watch()
    await watcher.next()
    for seq in range(2, 3 * QUEUE_LIMIT):
        window.hub.publish(window.append(seq, seq))
    window.hub.publish(window.append(3 * QUEUE_LIMIT, 3 * QUEUE_LIMIT, last=3 * QUEUE_LIMIT))
    await watcher.all()
    assert seqs(watcher) == list(range(1, 3 * QUEUE_LIMIT + 1))


# The end of watching


@pytest.mark.parametrize("shown", [0, 1, 3])
async def test_who_leaves_is_forgotten(window: Window, shown: int) -> None:
    window.append(2, 4)
    watcher, _ = window.watch()
    await watcher.next()
    for _ in range(shown):
        await watcher.next()
    await watcher.leave()
    assert not window.hub.watched


async def test_who_has_seen_all_is_forgotten(window: Window) -> None:
    window.append(2, 4, last=4)
    watcher, _ = window.watch()
    await watcher.all()
    assert not window.hub.watched


async def test_a_watcher_that_is_broken_off_while_it_waits_is_forgotten(window: Window) -> None:
    looking = await looks(window.watch()[0])
    looking.cancel()
    await asyncio.wait([looking])
    assert not window.hub.watched


async def test_a_silent_database_ends_the_watcher_with_its_cursor(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> LogPage:
        raise DatabaseUnavailable

    window.append(2, 4)
    watcher, _ = window.watch(1)
    await watcher.next()
    await watcher.next()
    looking = await looks(watcher)
    monkeypatch.setattr(window.log, "read", unavailable)
    window.hub.announce(window.run.run_id, 9)
    with pytest.raises(DatabaseUnavailable) as end:
        await looking
    assert end.value.metadata == {"run_id": str(window.run.run_id), "last_seq": "4"}
    assert not window.hub.watched


def erase(window: Window, *, before: int = 10_000) -> None:
    events = window.database.tables.events
    for key in [key for key in events if key[1] < before]:
        del events[key]


@pytest.mark.parametrize("before", [2, 10_000], ids=["in part", "whole"])
async def test_a_log_that_is_erased_before_it_is_read_is_no_run(window: Window, before: int) -> None:
    window.append(2, 4, last=4)
    watcher, _ = window.watch()
    erase(window, before=before)
    with pytest.raises(RunNotFound):
        await watcher.all()
    assert not watcher.seen
    assert not window.hub.watched


async def test_a_log_that_is_erased_between_two_pages_is_no_run(window: Window) -> None:
    window.append(2, 700, last=700)
    watcher, _ = window.watch()
    for _ in range(500):
        await watcher.next()
    erase(window)
    with pytest.raises(RunNotFound):
        await watcher.all()
    assert seqs(watcher) == list(range(1, 501))


async def test_a_watcher_of_a_run_that_was_erased_is_told_so(window: Window) -> None:
    looking = await looks(window.watch()[0])
    window.hub.stop_run(window.run.run_id, RunNotFound)
    with pytest.raises(RunNotFound):
        await looking


# Where the run is made


async def test_a_watcher_may_come_at_any_moment_with_any_cursor(replica: Replica) -> None:
    made = await replica.asked()
    run_id, call = made.run_id, await replica.call()
    watchers: list[tuple[int, asyncio.Task[Sequence[RunEvent]]]] = []

    async def come() -> None:
        for cursor in range(len(replica.logged(run_id)) + 1):
            late = await replica.watch(replica.caller, run_id, cursor)
            watchers.append((cursor, asyncio.create_task(late.all())))

    await come()
    for number in range(6):
        call.say(f"{number} ")
        await come()
        await replica.has_logged(run_id, number + 2)
        await come()
    call.finish()
    await come()
    await made.all()
    await come()
    for cursor, events in watchers:
        assert await events == replica.logged(run_id)[cursor:]
    assert not replica.hub.watched


# Where the run is not made


@pytest.mark.parametrize("after_seq", range(3))
async def test_a_run_is_seen_on_another_replica_over_the_bus_alone(
    replica: Replica, other: Replica, after_seq: int
) -> None:
    made = await replica.heard("It ")
    looking = await looks(await other.watch(replica.caller, made.run_id, after_seq))
    call = await replica.call()
    for number, piece in enumerate(("will", " rain", "."), 3):
        call.say(piece)
        await replica.has_logged(made.run_id, number)
    call.finish()
    assert await looking == replica.logged(made.run_id)[after_seq:]
    await until(lambda: not other.hub.watched)


async def test_over_the_bus_texts_are_shown_without_asking_the_log(
    replica: Replica, other: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await replica.heard("It ")
    watcher = await other.watch(replica.caller, made.run_id)
    looking = await looks(watcher)
    monkeypatch.setattr(other.log, "read", None)
    (await replica.call()).say("will.")
    await until(lambda: watcher.text == "It will.")
    looking.cancel()


async def test_without_a_bus_a_run_is_seen_by_surveys(replica: Replica, other: Replica, network: Network) -> None:
    network.cut = True
    made = await replica.heard("It ")
    watcher = await other.watch(replica.caller, made.run_id)
    looking = await looks(watcher)
    call = await replica.call()
    call.say("will.")
    await replica.has_logged(made.run_id, 3)
    await settled()
    assert seqs(watcher) == [1, 2]
    await other.remote.survey()
    await until(lambda: seqs(watcher) == [1, 2, 3])
    call.finish()
    await replica.has_ended(made.run_id)
    await other.remote.survey()
    assert await looking == replica.logged(made.run_id)


async def test_news_that_were_lost_are_found_with_the_next_ones(
    replica: Replica, other: Replica, network: Network
) -> None:
    made = await replica.heard("It ")
    watcher = await other.watch(replica.caller, made.run_id)
    looking = await looks(watcher)
    call = await replica.call()
    network.cut = True
    call.say("will")
    await replica.has_logged(made.run_id, 3)
    await settled()
    network.cut = False
    call.say(".")
    await until(lambda: watcher.text == "It will.")
    call.finish()
    assert await looking == replica.logged(made.run_id)


class WildNetwork(Network):
    """Loses, repeats and delays messages, as chance has it."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance
        self._delayed: list[tuple[UUID, BusMessage]] = []

    def carry(self, replica_id: UUID, message: BusMessage) -> None:
        self._delayed += [(replica_id, message)] * self._chance.choice([0, 1, 1, 1, 2])
        self._chance.shuffle(self._delayed)
        while self._delayed and self._chance.random() < 0.7:
            super().carry(*self._delayed.pop())


async def now_and_then(chance: Random, *actions: Callable[[], AsyncGenerator[None, None]]) -> None:
    """Lets the actions take turns by chance, each until it ends."""
    going = [action() for action in actions]
    while going:
        turn = chance.choice(going)
        if await anext(turn, "over") == "over":
            going.remove(turn)


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_the_bus_does_every_watcher_sees_the_log(database: FakeDatabase, seed: int) -> None:
    chance = Random(seed)
    network = WildNetwork(chance)
    looking: list[tuple[int, asyncio.Task[Sequence[RunEvent]]]] = []
    async with Replica(database, network).at_work() as maker, Replica(database, network).at_work() as other:
        made = await maker.asked()
        run_id, call = made.run_id, await maker.call()

        async def say() -> AsyncGenerator[None, None]:
            for number in range(20):
                call.say(f"{number} " * chance.choice([1, 1, 1, 7_000]))
                await until(lambda: not call.unread)
                yield
            call.finish()

        async def come() -> AsyncGenerator[None, None]:
            for _ in range(8):
                cursor = chance.randint(0, len(maker.logged(run_id)))
                late = await other.watch(maker.caller, run_id, cursor)
                looking.append((cursor, asyncio.create_task(late.all())))
                yield

        async def survey() -> AsyncGenerator[None, None]:
            for _ in range(10):
                await other.remote.survey()
                yield

        await now_and_then(chance, say, come, survey)
        await maker.has_ended(run_id)
        await settled()
        await other.remote.survey()
        assert [await events for _, events in looking] == [maker.logged(run_id)[cursor:] for cursor, _ in looking]
        assert not other.hub.watched


@pytest.mark.parametrize("seed", range(15))
async def test_whoever_dies_meanwhile_every_watcher_sees_the_log(database: FakeDatabase, seed: int) -> None:
    chance = Random(seed)
    network = WildNetwork(chance)
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(Replica(database, network).at_work())
        maker = await stack.enter_async_context(Replica(database, network).at_work())
        run_id = (await maker.asked()).run_id
        watchers = [await at.watch(maker.caller, run_id) for _ in range(3)]
        looking = [asyncio.create_task(watcher.all()) for watcher in watchers]
        owner = maker
        for attempt in range(chance.randint(1, 2)):
            await says(owner, *(f"{attempt}.{number} " for number in range(chance.randint(0, 5))))
            await owner.registry.leave(owner.engine.replica_id)
            (await owner.call()).say("never seen")
            await settled()
            owner = await stack.enter_async_context(Replica(database, network).at_work())
            await owner.engine.adopt_orphans()
            await at.remote.survey()
        await says(owner, "Yes", ".")
        (await owner.call()).finish()
        await owner.has_ended(run_id)
        await settled()
        await at.remote.survey()
        for events in looking:
            assert await events == at.logged(run_id)
        assert watchers[0].text == at.message(run_id).content == "Yes."


async def says(replica: Replica, *pieces: str) -> None:
    """Has the first call of the model say something, piece by piece."""
    call = await replica.call()
    for piece in pieces:
        call.say(piece)
        await until(lambda: not call.unread)

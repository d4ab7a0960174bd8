"""Watchers in this process see what is committed, in order, and never more than their queue may hold."""

import asyncio
from collections.abc import Iterator

import pytest

from application.hub import QUEUE_LIMIT, Hub
from domain.errors import ReplicaDraining, ReplicaFenced
from domain.run import Cancelled, Run, RunEvent
from tests.builders import a_conversation, a_run, an_answer, an_event
from tests.unit.waiting import settled


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def run() -> Run:
    return another_run()


def another_run() -> Run:
    conversation = a_conversation()
    return a_run(conversation, an_answer(conversation))


def pieces(run: Run, first: int, last: int) -> Iterator[RunEvent]:
    return (an_event(run, seq, f"piece {seq}") for seq in range(first, last + 1))


async def test_a_watcher_takes_what_was_published_since_it_came(hub: Hub, run: Run) -> None:
    hub.publish(list(pieces(run, 2, 2)))
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 3, 5)))
    assert [event.seq for event in await subscription.take()] == [3, 4, 5]


async def test_a_watcher_waits_for_the_next_event(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    taking = asyncio.create_task(subscription.take())
    await settled()
    assert not taking.done()
    hub.publish(list(pieces(run, 2, 2)))
    assert [event.seq for event in await taking] == [2]


async def test_nothing_is_taken_twice(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 2, 2)))
    await subscription.take()
    hub.publish(list(pieces(run, 3, 3)))
    assert [event.seq for event in await subscription.take()] == [3]


async def test_events_of_another_run_are_not_shown(hub: Hub, run: Run) -> None:
    subscription, other = hub.subscribe(run.run_id), another_run()
    hub.publish([*pieces(other, 2, 2), *pieces(run, 7, 7)])
    assert [event.seq for event in await subscription.take()] == [7]


async def test_every_watcher_of_a_run_takes_every_event(hub: Hub, run: Run) -> None:
    both = hub.subscribe(run.run_id), hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 2, 3)))
    assert [[event.seq for event in await one.take()] for one in both] == [[2, 3], [2, 3]]


async def test_a_full_queue_is_taken_whole(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 1, QUEUE_LIMIT)))
    assert len(await subscription.take()) == QUEUE_LIMIT


async def test_a_watcher_that_was_too_slow_sees_a_gap_before_the_newest(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 1, QUEUE_LIMIT + 2)))
    assert [event.seq for event in await subscription.take()] == [QUEUE_LIMIT + 1, QUEUE_LIMIT + 2]


async def test_a_watcher_that_never_looks_is_bounded(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 1, 20 * QUEUE_LIMIT)))
    assert len(subscription._events) <= QUEUE_LIMIT


async def test_a_stopped_watcher_ends_with_the_reason(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    taking = asyncio.create_task(subscription.take())
    await settled()
    hub.stop(ReplicaFenced)
    with pytest.raises(ReplicaFenced):
        await taking


async def test_a_stopped_watcher_first_takes_what_is_there(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 2, 2)))
    hub.stop(ReplicaDraining)
    assert [event.seq for event in await subscription.take()] == [2]
    with pytest.raises(ReplicaDraining):
        await subscription.take()


async def test_a_watcher_that_comes_after_a_stop_is_not_stopped(hub: Hub, run: Run) -> None:
    hub.stop(ReplicaFenced)
    subscription = hub.subscribe(run.run_id)
    hub.publish(list(pieces(run, 2, 2)))
    assert len(await subscription.take()) == 1


async def test_a_watcher_that_left_is_forgotten(hub: Hub, run: Run) -> None:
    left, stays = hub.subscribe(run.run_id), hub.subscribe(run.run_id)
    hub.unsubscribe(run.run_id, left)
    hub.publish(list(pieces(run, 2, 2)))
    assert not left._events
    assert len(await stays.take()) == 1


def test_leaving_twice_changes_nothing(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.unsubscribe(run.run_id, subscription)
    hub.unsubscribe(run.run_id, subscription)


def test_a_run_without_watchers_takes_no_memory(hub: Hub, run: Run) -> None:
    hub.unsubscribe(run.run_id, hub.subscribe(run.run_id))
    hub.publish(list(pieces(run, 2, 3)))
    assert not hub._watching


def test_a_run_that_ended_takes_no_memory(hub: Hub, run: Run) -> None:
    hub.subscribe(run.run_id)
    hub.publish([an_event(run, 2, Cancelled())])
    assert not hub._watching


async def test_the_last_event_is_still_taken(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run.run_id)
    hub.publish([*pieces(run, 2, 2), an_event(run, 3, Cancelled())])
    hub.unsubscribe(run.run_id, subscription)
    assert [event.seq for event in await subscription.take()] == [2, 3]

"""Watchers in this process see what is committed, in order, and never more than their queue may hold."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from application.hub import QUEUE_CHARACTERS, QUEUE_LIMIT, Hub, Subscription
from domain.errors import ReplicaDraining, ReplicaFenced, RunNotFound
from domain.run import Cancelled, Completed, FinishReason, Run, RunEvent
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
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 3, 5)))
    assert [event.seq for event in await subscription.take()] == [3, 4, 5]


async def test_a_watcher_waits_for_the_next_event(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    taking = asyncio.create_task(subscription.take())
    await settled()
    assert not taking.done()
    hub.publish(list(pieces(run, 2, 2)))
    assert [event.seq for event in await taking] == [2]


async def test_nothing_is_taken_twice(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 2, 2)))
    await subscription.take()
    hub.publish(list(pieces(run, 3, 3)))
    assert [event.seq for event in await subscription.take()] == [3]


async def test_events_of_another_run_are_not_shown(hub: Hub, run: Run) -> None:
    subscription, other = hub.subscribe(run), another_run()
    hub.publish([*pieces(other, 2, 2), *pieces(run, 7, 7)])
    assert [event.seq for event in await subscription.take()] == [7]


async def test_every_watcher_of_a_run_takes_every_event(hub: Hub, run: Run) -> None:
    both = hub.subscribe(run), hub.subscribe(run)
    hub.publish(list(pieces(run, 2, 3)))
    assert [[event.seq for event in await one.take()] for one in both] == [[2, 3], [2, 3]]


async def test_a_full_queue_is_taken_whole(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 1, QUEUE_LIMIT)))
    assert len(await subscription.take()) == QUEUE_LIMIT


async def test_a_watcher_that_was_too_slow_sees_a_gap_before_the_newest(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 1, QUEUE_LIMIT + 2)))
    assert [event.seq for event in await subscription.take()] == [QUEUE_LIMIT + 1, QUEUE_LIMIT + 2]


async def test_a_watcher_that_never_looks_is_bounded(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 1, 20 * QUEUE_LIMIT)))
    assert len(subscription._events) <= QUEUE_LIMIT


async def test_a_slow_watcher_s_long_texts_are_left_to_the_log(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish([an_event(run, seq, "x" * (QUEUE_CHARACTERS // 2)) for seq in range(2, 5)])
    assert [event.seq for event in await subscription.take()] == [4]


async def test_what_was_taken_counts_no_more(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    for first in (2, 4):
        hub.publish([an_event(run, seq, "x" * (QUEUE_CHARACTERS // 2)) for seq in (first, first + 1)])
        assert [event.seq for event in await subscription.take()] == [first, first + 1]


async def test_a_text_that_is_too_long_by_itself_is_left_to_the_log(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish([an_event(run, 2, "x"), an_event(run, 3, "x" * (QUEUE_CHARACTERS + 1))])
    assert not await subscription.take()
    hub.publish([an_event(run, 4, "x")])
    assert [event.seq for event in await subscription.take()] == [4]


async def test_a_watcher_that_waits_is_handed_a_text_of_any_length(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    taking = asyncio.create_task(subscription.take())
    await settled()
    hub.publish([an_event(run, 2, "x" * (QUEUE_CHARACTERS + 1))])
    assert [event.seq for event in await taking] == [2]


async def test_a_whole_message_counts_as_its_text(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    message = an_answer(a_conversation(), content="x" * (QUEUE_CHARACTERS + 1))
    hub.publish([an_event(run, 2, Completed(message, FinishReason.STOP))])
    assert not await subscription.take()


async def test_a_stopped_watcher_ends_with_the_reason(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    taking = asyncio.create_task(subscription.take())
    await settled()
    hub.stop(ReplicaFenced)
    with pytest.raises(ReplicaFenced):
        await taking


async def test_a_stopped_watcher_first_takes_what_is_there(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 2, 2)))
    hub.stop(ReplicaDraining)
    assert [event.seq for event in await subscription.take()] == [2]
    with pytest.raises(ReplicaDraining):
        await subscription.take()


async def test_a_watcher_that_comes_after_a_stop_is_not_stopped(hub: Hub, run: Run) -> None:
    hub.stop(ReplicaFenced)
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 2, 2)))
    assert len(await subscription.take()) == 1


async def test_a_watcher_that_left_is_forgotten(hub: Hub, run: Run) -> None:
    left, stays = hub.subscribe(run), hub.subscribe(run)
    hub.unsubscribe(run.run_id, left)
    hub.publish(list(pieces(run, 2, 2)))
    assert not left._events
    assert len(await stays.take()) == 1


def test_leaving_twice_changes_nothing(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.unsubscribe(run.run_id, subscription)
    hub.unsubscribe(run.run_id, subscription)


def test_a_run_without_watchers_takes_no_memory(hub: Hub, run: Run) -> None:
    hub.unsubscribe(run.run_id, hub.subscribe(run))
    hub.publish(list(pieces(run, 2, 3)))
    assert not hub.watched


def test_a_run_that_ended_takes_no_memory(hub: Hub, run: Run) -> None:
    hub.subscribe(run)
    hub.publish([an_event(run, 2, Cancelled())])
    assert not hub.watched


def test_each_watched_run_is_listed_once(hub: Hub, run: Run) -> None:
    one, other = another_run(), another_run()
    for watched in (one, one, other):
        hub.subscribe(watched)
    assert set(hub.watched) == {(one.workspace_id, one.run_id), (other.workspace_id, other.run_id)}
    assert len(hub.watched) == 2


async def test_the_last_event_is_still_taken(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish([*pieces(run, 2, 2), an_event(run, 3, Cancelled())])
    hub.unsubscribe(run.run_id, subscription)
    assert [event.seq for event in await subscription.take()] == [2, 3]


# What only the log knows


async def sleeps(subscription: Subscription) -> bool:
    """Says whether the watcher waits for something, once it has taken what there is."""
    taking = asyncio.create_task(subscription.take())
    await settled()
    asleep = not taking.done()
    taking.cancel()
    return asleep


async def test_an_announcement_sends_a_watcher_to_the_log(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    taking = asyncio.create_task(subscription.take())
    await settled()
    hub.announce(run.run_id, 7)
    assert not await taking


async def test_an_announcement_sends_a_watcher_to_the_log_once(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    for _ in range(2):
        hub.announce(run.run_id, 7)
    assert not await subscription.take()
    hub.announce(run.run_id, 7)
    assert await sleeps(subscription)


async def test_an_announcement_reaches_every_watcher_of_the_run(hub: Hub, run: Run) -> None:
    both = hub.subscribe(run), hub.subscribe(run)
    hub.announce(run.run_id, 7)
    assert [list(await one.take()) for one in both] == [[], []]


async def test_what_was_published_is_no_news(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 2, 4)))
    await subscription.take()
    hub.announce(run.run_id, 4)
    assert await sleeps(subscription)


async def test_what_the_log_had_when_a_watcher_came_is_no_news(hub: Hub) -> None:
    run = replace(another_run(), last_seq=9)
    subscription = hub.subscribe(run)
    hub.announce(run.run_id, 9)
    assert await sleeps(subscription)


async def test_late_news_do_not_make_the_newest_older(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish([*pieces(run, 5, 5), *pieces(run, 3, 3)])
    await subscription.take()
    hub.announce(run.run_id, 5)
    assert await sleeps(subscription)


async def test_late_news_do_not_make_a_watcher_forget_what_it_heard_of(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish([*pieces(run, 5, 5), *pieces(run, 3, 3)])
    assert subscription.newest == 5


async def test_an_announcement_behind_events_is_not_forgotten_with_them(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.publish(list(pieces(run, 2, 2)))
    hub.announce(run.run_id, 3)
    assert [event.seq for event in await subscription.take()] == [2]
    assert not await subscription.take()
    assert await sleeps(subscription)


async def test_a_stopped_watcher_is_first_sent_to_the_log(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    hub.announce(run.run_id, 7)
    hub.stop(ReplicaDraining)
    assert not await subscription.take()
    with pytest.raises(ReplicaDraining):
        await subscription.take()


def test_news_of_a_run_that_nobody_watches_are_ignored(hub: Hub, run: Run) -> None:
    hub.announce(run.run_id, 7)
    hub.stop_run(run.run_id, RunNotFound)
    assert not hub.watched


# The end of watching


async def test_one_run_s_watchers_are_stopped_alone(hub: Hub, run: Run) -> None:
    stopped, stays = hub.subscribe(run), hub.subscribe(another_run())
    hub.stop_run(run.run_id, RunNotFound)
    with pytest.raises(RunNotFound):
        await stopped.take()
    assert await sleeps(stays)


async def test_whoever_comes_after_the_close_is_stopped_too(hub: Hub, run: Run) -> None:
    early = hub.subscribe(run)
    hub.close(ReplicaDraining)
    for subscription in (early, hub.subscribe(run)):
        with pytest.raises(ReplicaDraining):
            await subscription.take()


async def test_a_watcher_whose_waiting_was_broken_off_can_wait_again(hub: Hub, run: Run) -> None:
    subscription = hub.subscribe(run)
    assert await sleeps(subscription)
    hub.publish(list(pieces(run, 2, 2)))
    assert len(await subscription.take()) == 1

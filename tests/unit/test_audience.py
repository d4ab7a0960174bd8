"""Who is shown what was committed: the watchers here at once, other replicas if they asked for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from application import audience as module
from application.audience import CARRIED_LIMIT, OUTBOX_LIMIT, Audience
from application.hub import Hub
from application.ports.event_bus import BusMessage, CancelWanted, Interest, News, OrphansLeft
from domain.conversation import MessageStatus
from domain.run import AttemptReset, Cancelled, Completed, EventBody, Failed, FinishReason, Run, RunEvent
from tests.builders import a_conversation, a_run, a_start, an_answer, an_event, new_id
from tests.fakes.event_bus import FakeEventBus
from tests.unit.waiting import settled, until


class Slow(FakeEventBus):
    """A bus that takes its time until `answers` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.answers.set()

    async def send(self, messages: Sequence[tuple[UUID, BusMessage]]) -> None:
        await super().send(messages)
        await self.answers.wait()


@pytest.fixture
def bus() -> Slow:
    return Slow()


@pytest.fixture
async def audience(bus: Slow) -> AsyncIterator[Audience]:
    audience = Audience(Hub(), bus)
    delivering = asyncio.create_task(audience.deliver())
    yield audience
    delivering.cancel()
    await asyncio.wait([delivering])


@pytest.fixture
def run() -> Run:
    return another_run()


def another_run() -> Run:
    conversation = a_conversation()
    return a_run(conversation, an_answer(conversation))


async def news(bus: FakeEventBus, replica_id: UUID) -> list[News]:
    """The news that a replica was sent, once everything is delivered."""
    await settled()
    return [message for to, message in bus.sent if to == replica_id and isinstance(message, News)]


async def test_watchers_here_are_shown_events_before_publish_returns(audience: Audience, run: Run) -> None:
    subscription = audience.hub.subscribe(run)
    audience.publish([an_event(run, 2, "It wi")])
    assert [event.seq for event in await subscription.take()] == [2]


async def test_without_interest_nothing_is_sent(audience: Audience, bus: Slow, run: Run) -> None:
    audience.publish([an_event(run, 2, "It wi")])
    await settled()
    assert not bus.sent


async def test_a_round_is_one_message_to_each_interested_replica(audience: Audience, bus: Slow) -> None:
    one, two, three = another_run(), another_run(), another_run()
    here, there = new_id(), new_id()
    audience.admit(Interest(here, [one.run_id, two.run_id]))
    audience.admit(Interest(there, [two.run_id, three.run_id]))
    events = [an_event(run, 2, "x") for run in (one, two, three)]
    audience.publish(events)
    assert await news(bus, here) == [News(events[:2])]
    assert await news(bus, there) == [News(events[1:])]
    assert len(bus.sent) == 2


async def test_runs_that_nobody_asked_for_are_not_sent(audience: Audience, bus: Slow, run: Run) -> None:
    replica_id, other = new_id(), another_run()
    audience.admit(Interest(replica_id, [run.run_id]))
    audience.publish([an_event(other, 2, "x")])
    await settled()
    assert not bus.sent


async def test_interest_ends_by_itself(
    audience: Audience, bus: Slow, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTEREST_SECONDS", -1.0)
    audience.admit(Interest(new_id(), [run.run_id]))
    audience.publish([an_event(run, 2, "x")])
    await settled()
    assert not bus.sent
    assert not audience._interested


async def test_interest_that_is_renewed_goes_on(
    audience: Audience, bus: Slow, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes = new_id(), new_id()
    monkeypatch.setattr(module, "INTEREST_SECONDS", -1.0)
    for replica_id in (stays, goes):
        audience.admit(Interest(replica_id, [run.run_id]))
    monkeypatch.undo()
    audience.admit(Interest(stays, [run.run_id]))
    audience.publish([an_event(run, 2, "x")])
    await settled()
    assert [to for to, _ in bus.sent] == [stays]


async def test_interest_ends_with_the_run(audience: Audience, bus: Slow, run: Run) -> None:
    replica_id = new_id()
    audience.admit(Interest(replica_id, [run.run_id]))
    last = an_event(run, 2, Cancelled())
    audience.publish([last])
    assert await news(bus, replica_id) == [News([last])]
    assert not audience._interested


async def test_nobody_is_interested_in_what_is_made_elsewhere(audience: Audience, bus: Slow) -> None:
    kept, gone = another_run(), another_run()
    replica_id = new_id()
    audience.admit(Interest(replica_id, [kept.run_id, gone.run_id]))
    audience.dismiss(gone.run_id)
    audience.publish([an_event(kept, 2, "x"), an_event(gone, 2, "x")])
    assert [event.run_id for one in await news(bus, replica_id) for event in one.events] == [kept.run_id]
    audience.dismiss_all()
    audience.publish([an_event(kept, 3, "x")])
    assert len(await news(bus, replica_id)) == 1


@pytest.mark.parametrize(
    "body",
    [AttemptReset("REPLICA_LOST"), Failed("MODEL_STALLED", "it said nothing"), Cancelled(), "x", "x" * CARRIED_LIMIT],
    ids=lambda body: f"{len(body)} characters" if isinstance(body, str) else type(body).__name__,
)
async def test_small_events_are_sent_themselves(audience: Audience, bus: Slow, run: Run, body: EventBody | str) -> None:
    replica_id, event = new_id(), an_event(run, 2, body)
    audience.admit(Interest(replica_id, [run.run_id]))
    audience.publish([event])
    assert await news(bus, replica_id) == [News([event])]


def big_events(run: Run) -> Sequence[RunEvent]:
    conversation = a_conversation()
    message = an_answer(conversation, content="Yes.", status=MessageStatus.COMPLETE)
    completed = an_event(run, 2, Completed(message, FinishReason.STOP))
    return a_start(run), an_event(run, 2, "x" * (CARRIED_LIMIT + 1)), completed


@pytest.mark.parametrize("kind", range(3), ids=["Started", "a long text", "Completed"])
async def test_of_big_events_only_the_seq_is_told(audience: Audience, bus: Slow, run: Run, kind: int) -> None:
    replica_id, event = new_id(), big_events(run)[kind]
    audience.admit(Interest(replica_id, [run.run_id]))
    audience.publish([event])
    assert await news(bus, replica_id) == [News([], [(run.run_id, event.seq)])]


async def test_small_and_big_events_of_a_round_go_together(audience: Audience, bus: Slow, run: Run) -> None:
    replica_id, small, big = new_id(), an_event(run, 2, "x"), an_event(run, 3, "y" * (CARRIED_LIMIT + 1))
    audience.admit(Interest(replica_id, [run.run_id]))
    audience.publish([small, big])
    assert await news(bus, replica_id) == [News([small], [(run.run_id, 3)])]


async def test_messages_are_sent_in_the_order_they_were_posted(audience: Audience, bus: Slow) -> None:
    messages: list[tuple[UUID, BusMessage]] = [(new_id(), CancelWanted(new_id())) for _ in range(5)]
    for to, message in messages:
        audience.post(to, message)
    await until(lambda: len(bus.sent) == 5)
    assert bus.sent == messages


async def test_what_is_posted_while_the_bus_is_slow_goes_next(audience: Audience, bus: Slow) -> None:
    bus.answers.clear()
    audience.post(new_id(), OrphansLeft())
    await until(lambda: bus.sent)
    later = new_id()
    audience.post(later, OrphansLeft())
    await settled()
    assert len(bus.sent) == 1
    bus.answers.set()
    await until(lambda: len(bus.sent) == 2)
    assert bus.sent[1] == (later, OrphansLeft())


async def test_publishing_does_not_wait_for_the_bus(audience: Audience, bus: Slow, run: Run) -> None:
    bus.answers.clear()
    audience.admit(Interest(new_id(), [run.run_id]))
    subscription = audience.hub.subscribe(run)
    for seq in range(2, 5):
        audience.publish([an_event(run, seq, "x")])
    assert [event.seq for event in await subscription.take()] == [2, 3, 4]


async def test_of_too_many_messages_the_oldest_are_lost(audience: Audience, bus: Slow) -> None:
    bus.answers.clear()
    audience.post(new_id(), OrphansLeft())
    await until(lambda: bus.sent)
    addressees = [new_id() for _ in range(OUTBOX_LIMIT + 3)]
    for addressee in addressees:
        audience.post(addressee, OrphansLeft())
    bus.answers.set()
    await until(lambda: len(bus.sent) > 1)
    assert [to for to, _ in bus.sent[1:]] == addressees[3:]


async def test_who_is_told_something_has_been_sent_it_on_return(bus: Slow) -> None:
    replicas = [new_id(), new_id()]
    await Audience(Hub(), bus).tell(replicas, OrphansLeft())
    assert bus.sent == [(replica_id, OrphansLeft()) for replica_id in replicas]

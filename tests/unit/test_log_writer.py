"""The log writer: what it shows is in the log, once, in order, whatever the log answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from application import log_writer
from application.audience import Audience
from application.hub import Hub, Subscription
from application.log_writer import UNWRITTEN_LIMIT, LogWriter, Transcript
from application.ports.event_bus import Interest, News
from domain.conversation import NO_USAGE, MessageStatus, Usage
from domain.errors import InvalidInput, ReplicaFenced
from domain.run import Cancelled, Completed, Failed, FinishReason, RunEvent, RunState, TextDelta
from tests.builders import a_conversation, a_message, a_run, a_start, an_answer, new_id
from tests.fakes.database import FakeDatabase
from tests.fakes.event_bus import FakeEventBus
from tests.fakes.replica_registry import FakeReplicaRegistry
from tests.fakes.run_log import FakeRunLog
from tests.unit.waiting import settled, until

STOP = FinishReason.STOP


class Desk:
    """A writer at work, with its log and its watchers."""

    def __init__(self) -> None:
        self.database = FakeDatabase()
        self.log = FakeRunLog(self.database)
        self.hub = Hub()
        self.bus = FakeEventBus()
        self.audience = Audience(self.hub, self.bus)
        self.writer = LogWriter(new_id(), self.log, self.audience, self.database.clock)

    async def join(self) -> None:
        await FakeReplicaRegistry(self.database).join(self.writer.replica_id)

    def begin(self) -> tuple[Transcript, Subscription]:
        """Returns a run with its first event in the log, and somebody who watches it."""
        conversation = a_conversation()
        answer = an_answer(conversation, a_message(conversation))
        run, tables = a_run(conversation, answer), self.database.tables
        tables.runs[run.run_id] = run
        tables.events[run.run_id, 1] = a_start(run)
        tables.messages[run.workspace_id, answer.message_id] = answer
        return self.writer.open(run, answer), self.hub.subscribe(run)

    def logged(self, transcript: Transcript) -> Sequence[RunEvent]:
        """The run's events after the first, as the log has them."""
        stored = self.database.tables.events
        run_id = transcript.run.run_id
        return [stored[key] for key in sorted(key for key in stored if key[0] == run_id and key[1] > 1)]

    def texts(self, transcript: Transcript) -> list[str]:
        bodies = [event.body for event in self.logged(transcript)]
        return [body.text for body in bodies if isinstance(body, TextDelta)]

    async def written(self, transcript: Transcript, text: str) -> None:
        """Returns when the run's log holds this much text."""
        await until(lambda: "".join(self.texts(transcript)) == text)


def shown(subscription: Subscription) -> Sequence[RunEvent]:
    """What the watcher was handed and has not taken."""
    return list(subscription._events)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "RETRY_SECONDS", 0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.join()
    working = asyncio.create_task(desk.writer.run())
    yield desk
    working.cancel()
    with suppress(asyncio.CancelledError, ReplicaFenced):
        await working


@pytest.fixture
async def idle_desk() -> Desk:
    """A desk whose writer does not run: the test runs it."""
    desk = Desk()
    await desk.join()
    return desk


async def test_nothing_is_shown_before_the_log_has_it(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "Rain.")
    await settled()
    assert not shown(watcher)
    desk.log.flowing.set()
    await until(lambda: shown(watcher))
    assert shown(watcher) == desk.logged(transcript)


async def test_the_end_is_not_shown_before_the_log_has_it(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    desk.log.flowing.clear()
    finishing = asyncio.create_task(desk.writer.finish(transcript, STOP, NO_USAGE))
    await settled()
    assert not shown(watcher)
    desk.log.flowing.set()
    await finishing
    assert shown(watcher)[-1].is_last


async def test_seq_has_no_gap_over_many_rounds(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    for number in range(50):
        await desk.writer.write(transcript, f"{number} ")
        await until(lambda: not transcript.unwritten)
    await desk.writer.finish(transcript, STOP, NO_USAGE)
    assert [event.seq for event in shown(watcher)] == list(range(2, 53))
    assert shown(watcher) == desk.logged(transcript)


async def test_what_comes_while_a_batch_is_in_flight_is_one_event(desk: Desk) -> None:
    transcript, _ = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "first")
    await until(lambda: transcript.in_flight)
    for text in (" and", " then", " more"):
        await desk.writer.write(transcript, text)
    desk.log.flowing.set()
    await desk.written(transcript, "first and then more")
    assert desk.texts(transcript) == ["first", " and then more"]


async def test_all_busy_runs_share_a_batch(desk: Desk) -> None:
    transcripts = [desk.begin()[0] for _ in range(3)]
    for transcript in transcripts:
        await desk.writer.write(transcript, "x")
    await until(lambda: desk.log.batches)
    assert [event.run_id for event in desk.log.batches[0]] == [transcript.run.run_id for transcript in transcripts]


async def test_an_event_tells_run_attempt_and_time(desk: Desk) -> None:
    transcript, _ = desk.begin()
    await desk.writer.write(transcript, "x")
    await desk.written(transcript, "x")
    run, now = transcript.run, desk.database.clock.now()
    assert desk.logged(transcript) == [
        RunEvent(run.workspace_id, run.run_id, 2, run.attempt, now, TextDelta("x")),
    ]


@pytest.mark.parametrize("failure", ["unavailable", "lost_replies"])
async def test_a_batch_of_unknown_outcome_is_repeated_unchanged_before_anything_newer(desk: Desk, failure: str) -> None:
    transcript, watcher = desk.begin()
    setattr(desk.log, failure, 3)
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "old")
    await until(lambda: transcript.in_flight)
    await desk.writer.write(transcript, " new")
    desk.log.flowing.set()
    await desk.written(transcript, "old new")
    await until(lambda: len(shown(watcher)) == 2)
    assert desk.texts(transcript) == ["old", " new"]
    assert shown(watcher) == desk.logged(transcript)
    assert all(batch == desk.log.batches[0] for batch in desk.log.batches[:-1])


@pytest.mark.parametrize("failure", ["unavailable", "lost_replies"])
async def test_an_end_of_unknown_outcome_is_repeated_unchanged(desk: Desk, failure: str) -> None:
    transcript, watcher = desk.begin()
    setattr(desk.log, failure, 3)
    ending = await desk.writer.finish(transcript, STOP, NO_USAGE)
    assert shown(watcher) == desk.logged(transcript) == ending.events
    assert all(batch == ending.events for batch in desk.log.batches)


async def test_the_end_waits_for_the_batch_in_flight_and_takes_the_open_text_along(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "one")
    await until(lambda: transcript.in_flight)
    await desk.writer.write(transcript, " two")
    finishing = asyncio.create_task(desk.writer.finish(transcript, STOP, Usage(3, 2)))
    await settled()
    desk.log.flowing.set()
    ending = await finishing
    assert [len(batch) for batch in desk.log.batches] == [1, 2]
    assert [event.seq for event in shown(watcher)] == [2, 3, 4]
    assert ending.events[-1].body == Completed(ending.message, STOP)
    assert (ending.message.content, ending.message.usage) == ("one two", Usage(3, 2))


async def test_joined_deltas_are_the_final_message_byte_for_byte(desk: Desk) -> None:
    transcript, _ = desk.begin()
    for text in ("Caf\u00e9 ", "\U0001f327", "\ufffd", "\r\n", "e\u0301"):
        await desk.writer.write(transcript, text)
        await until(lambda: not transcript.unwritten)
    await desk.writer.write(transcript, "end")
    ending = await desk.writer.finish(transcript, STOP, NO_USAGE)
    assert "".join(desk.texts(transcript)) == ending.message.content == "Caf\u00e9 \U0001f327\ufffd\r\ne\u0301end"


async def test_the_end_stores_message_and_run(desk: Desk) -> None:
    transcript, _ = desk.begin()
    ending = await desk.writer.finish(transcript, Cancelled(), NO_USAGE)
    tables, run = desk.database.tables, transcript.run
    assert tables.messages[run.workspace_id, run.message_id].status is MessageStatus.CANCELLED
    assert tables.runs[run.run_id] == ending.run
    assert ending.run.state is RunState.CANCELLED


async def test_nothing_is_written_for_a_run_after_its_end(desk: Desk) -> None:
    transcript, _ = desk.begin()
    await desk.writer.write(transcript, "x")
    await desk.writer.finish(transcript, STOP, NO_USAGE)
    await settled()
    assert [len(batch) for batch in desk.log.batches] == [2]


async def test_text_that_was_in_the_log_before_belongs_to_the_message(desk: Desk) -> None:
    transcript, _ = desk.begin()
    adopted = desk.writer.open(transcript.run, replace(transcript.message, content="logged "))
    ending = await desk.writer.finish(adopted, Failed("REPLICA_LOST", "it died"), NO_USAGE)
    assert (ending.message.content, ending.message.status) == ("logged ", MessageStatus.INCOMPLETE)


async def test_a_further_attempt_goes_on_behind_the_log(desk: Desk) -> None:
    first, _ = desk.begin()
    run = replace(first.run, attempt=2, last_seq=7)
    transcript = desk.writer.open(run, first.message)
    await desk.writer.write(transcript, "again")
    await desk.written(transcript, "again")
    ending = await desk.writer.finish(transcript, STOP, NO_USAGE)
    assert [(event.seq, event.attempt) for event in desk.logged(transcript)] == [(8, 2), (9, 2)]
    assert (ending.run.attempt, ending.run.last_seq, ending.message.content) == (2, 9, "again")


async def test_other_replicas_that_asked_are_sent_what_is_in_the_log(desk: Desk) -> None:
    transcript, _ = desk.begin()
    replica_id = new_id()
    desk.audience.admit(Interest(replica_id, [transcript.run.run_id]))
    await desk.writer.write(transcript, "x")
    await desk.written(transcript, "x")
    ending = await desk.writer.finish(transcript, STOP, NO_USAGE)
    marks = [(transcript.run.run_id, ending.run.last_seq)]
    assert list(desk.audience._outbox) == [
        (replica_id, News(desk.logged(transcript)[:1])),
        (replica_id, News([], marks)),
    ]


async def test_the_writer_of_a_fenced_replica_ends(idle_desk: Desk) -> None:
    transcript, _ = idle_desk.begin()
    idle_desk.log.fenced = True
    await idle_desk.writer.write(transcript, "x")
    with pytest.raises(ReplicaFenced):
        await idle_desk.writer.run()


async def test_a_fenced_replica_shows_nothing(idle_desk: Desk) -> None:
    transcript, watcher = idle_desk.begin()
    idle_desk.log.fenced = True
    await idle_desk.writer.write(transcript, "x")
    with pytest.raises(ReplicaFenced):
        await idle_desk.writer.run()
    assert not shown(watcher)


async def test_a_fenced_writer_takes_no_text(desk: Desk) -> None:
    transcript, _ = desk.begin()
    desk.writer.fence()
    with pytest.raises(ReplicaFenced):
        await desk.writer.write(transcript, "x")


async def test_a_fenced_writer_ends_no_run(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    desk.log.fenced = True
    with pytest.raises(ReplicaFenced):
        await desk.writer.finish(transcript, STOP, NO_USAGE)
    assert not shown(watcher)


async def test_an_end_that_meets_the_fence_ends_the_writer(idle_desk: Desk) -> None:
    transcript, _ = idle_desk.begin()
    idle_desk.log.fenced = True
    working = asyncio.create_task(idle_desk.writer.run())
    with pytest.raises(ReplicaFenced):
        await idle_desk.writer.finish(transcript, STOP, NO_USAGE)
    await until(working.done)
    assert isinstance(working.exception(), ReplicaFenced)


async def test_an_idle_writer_ends_when_the_lease_is_lost(idle_desk: Desk) -> None:
    working = asyncio.create_task(idle_desk.writer.run())
    await settled()
    idle_desk.writer.fence()
    await until(working.done)
    assert isinstance(working.exception(), ReplicaFenced)


async def test_a_lease_lost_while_the_database_is_away_ends_the_writer(idle_desk: Desk) -> None:
    transcript, _ = idle_desk.begin()
    idle_desk.log.unavailable = 1_000_000
    working = asyncio.create_task(idle_desk.writer.run())
    await idle_desk.writer.write(transcript, "x")
    await until(lambda: transcript.in_flight)
    idle_desk.writer.fence()
    await until(working.done)
    assert isinstance(working.exception(), ReplicaFenced)


async def test_a_batch_that_succeeds_late_does_not_lift_the_fence(idle_desk: Desk) -> None:
    transcript, _ = idle_desk.begin()
    idle_desk.log.flowing.clear()
    working = asyncio.create_task(idle_desk.writer.run())
    await idle_desk.writer.write(transcript, "x")
    await until(lambda: transcript.in_flight)
    idle_desk.writer.fence()
    idle_desk.log.flowing.set()
    await until(working.done)
    assert isinstance(working.exception(), ReplicaFenced)
    assert idle_desk.writer.fenced


@pytest.mark.parametrize("what", ["batch", "end"])
async def test_what_the_log_took_before_the_lease_was_lost_is_shown(idle_desk: Desk, what: str) -> None:
    transcript, watcher = idle_desk.begin()
    idle_desk.log.flowing.clear()
    working = asyncio.create_task(idle_desk.writer.run())
    if what == "batch":
        await idle_desk.writer.write(transcript, "x")
    else:
        finishing = asyncio.create_task(idle_desk.writer.finish(transcript, STOP, NO_USAGE))
    await settled()
    idle_desk.writer.fence()
    idle_desk.log.flowing.set()
    await until(working.done)
    assert isinstance(working.exception(), ReplicaFenced)
    if what == "end":
        await finishing
    assert shown(watcher) == idle_desk.logged(transcript) != []


async def test_an_end_that_waits_for_a_writer_that_was_stopped_gives_up(idle_desk: Desk) -> None:
    transcript, _ = idle_desk.begin()
    idle_desk.log.flowing.clear()
    working = asyncio.create_task(idle_desk.writer.run())
    await idle_desk.writer.write(transcript, "x")
    await until(lambda: transcript.in_flight)
    finishing = asyncio.create_task(idle_desk.writer.finish(transcript, STOP, NO_USAGE))
    await settled()
    working.cancel()
    with pytest.raises(ReplicaFenced):
        await finishing


async def test_a_text_that_the_log_refuses_fails_only_its_run(desk: Desk) -> None:
    (good, _), (bad, _) = desk.begin(), desk.begin()
    await desk.writer.write(bad, "\x00")
    await desk.writer.write(good, "fine")
    await desk.written(good, "fine")
    await until(lambda: bad.refused)
    await desk.writer.write(good, " still")
    with pytest.raises(InvalidInput):
        await desk.writer.write(bad, "more")
    await desk.written(good, "fine still")


async def test_a_refused_text_leaves_its_seq_to_the_end(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    await desk.writer.write(transcript, "\x00")
    await until(lambda: transcript.refused)
    await desk.writer.finish(transcript, Failed("INVALID_FIELD", "no"), NO_USAGE)
    assert [event.seq for event in shown(watcher)] == [2]


async def test_text_behind_a_refused_one_is_not_written(desk: Desk) -> None:
    transcript, _ = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "\x00")
    await until(lambda: transcript.in_flight)
    await desk.writer.write(transcript, "behind the hole")
    desk.log.flowing.set()
    await until(lambda: transcript.refused)
    await settled()
    ending = await desk.writer.finish(transcript, Failed("INVALID_FIELD", "no"), NO_USAGE)
    assert not desk.texts(transcript)
    assert ending.message.content == ""


async def test_a_run_whose_text_is_refused_while_it_ends_has_failed(desk: Desk) -> None:
    transcript, watcher = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "\x00")
    await until(lambda: transcript.in_flight)
    finishing = asyncio.create_task(desk.writer.finish(transcript, STOP, NO_USAGE))
    await settled()
    desk.log.flowing.set()
    ending = await finishing
    assert ending.run.state is RunState.FAILED
    assert shown(watcher) == desk.logged(transcript)


async def test_a_run_whose_last_text_is_refused_has_failed(idle_desk: Desk) -> None:
    transcript, watcher = idle_desk.begin()
    await idle_desk.writer.write(transcript, "\x00")
    ending = await idle_desk.writer.finish(transcript, STOP, NO_USAGE)
    assert (ending.run.state, ending.message.content) == (RunState.FAILED, "")
    assert shown(watcher) == idle_desk.logged(transcript)


async def test_a_run_with_too_much_unwritten_text_waits(desk: Desk) -> None:
    transcript, _ = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "x" * (UNWRITTEN_LIMIT + 1))
    writing = asyncio.create_task(desk.writer.write(transcript, "y"))
    await settled()
    assert not writing.done()
    desk.log.flowing.set()
    await writing


async def test_a_run_with_just_enough_unwritten_text_does_not_wait(idle_desk: Desk) -> None:
    transcript, _ = idle_desk.begin()
    await idle_desk.writer.write(transcript, "x" * UNWRITTEN_LIMIT)
    await idle_desk.writer.write(transcript, "y")
    assert transcript.unwritten == UNWRITTEN_LIMIT + 1


async def test_a_run_that_waits_does_not_hold_up_another(desk: Desk) -> None:
    (full, _), (other, _) = desk.begin(), desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(full, "x" * (UNWRITTEN_LIMIT + 1))
    writing = asyncio.create_task(desk.writer.write(full, "y"))
    await settled()
    await desk.writer.write(other, "z")
    assert other.is_open
    desk.log.flowing.set()
    await writing


async def test_a_run_that_waits_is_told_that_its_text_was_refused(desk: Desk) -> None:
    transcript, _ = desk.begin()
    desk.log.flowing.clear()
    await desk.writer.write(transcript, "\x00" * (UNWRITTEN_LIMIT + 1))
    writing = asyncio.create_task(desk.writer.write(transcript, "y"))
    await settled()
    desk.log.flowing.set()
    with pytest.raises(InvalidInput):
        await writing

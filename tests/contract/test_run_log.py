"""What every log of events owes its callers."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from uuid import UUID

import pytest

from application.ports.run_log import LogPage, Standing, Survey
from domain.conversation import MessageStatus, Usage
from domain.errors import InvalidInput
from domain.run import (
    AttemptReset,
    Cancelled,
    Completed,
    Ending,
    Failed,
    FinishReason,
    RunEvent,
    RunState,
    Started,
    end,
)
from tests.builders import NOW, an_event, new_id
from tests.stores import Began, Store, a_begun_run

USAGE = Usage(11, 22)
SECOND = timedelta(seconds=1)


class RunLogContract:
    async def test_events_come_back_in_order_and_as_they_were_written(self, store: Store) -> None:
        began = await a_begun_run(store)
        events = [
            an_event(began.run, 2, "Grüße 🌧\n"),
            an_event(began.run, 3, AttemptReset("OWNER_LOST"), attempt=2),
            an_event(began.run, 4, " ", attempt=2, create_time=NOW + timedelta(microseconds=1)),
        ]
        assert await store.run_log.append(began.replica_id, events)
        assert await _read(store, began, after_seq=1) == events

    async def test_the_first_event_is_the_one_stored_with_the_run(self, store: Store) -> None:
        began = await a_begun_run(store)
        [started] = await _read(store, began)
        body = Started(
            began.conversation.conversation_id, began.question.message_id, began.answer.message_id, began.run.model
        )
        assert started == an_event(began.run, 1, body)

    async def test_reading_goes_on_after_a_cursor(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, seq, "x") for seq in range(2, 8)])
        assert [event.seq for event in await _read(store, began, after_seq=5)] == [6, 7]
        assert await _page(store, began, after_seq=7) == LogPage([], has_more=False)

    @pytest.mark.parametrize(("newest", "length", "has_more"), [(500, 500, False), (501, 500, True)])
    async def test_a_page_holds_500_events(self, store: Store, newest: int, length: int, has_more: bool) -> None:
        began = await a_begun_run(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, seq, "x") for seq in range(2, newest + 1)])
        page = await _page(store, began)
        assert (len(page.events), page.has_more) == (length, has_more)

    async def test_a_page_ends_before_the_event_that_passes_64_kib_of_text(self, store: Store) -> None:
        began = await a_begun_run(store)
        texts = ["ä" * 16 * 1024, "x" * 32 * 1024, "y", "z"]
        await store.run_log.append(
            began.replica_id, [an_event(began.run, seq, text) for seq, text in enumerate(texts, start=2)]
        )
        page = await _page(store, began, after_seq=1)
        assert ([event.seq for event in page.events], page.has_more) == ([2, 3], True)
        page = await _page(store, began, after_seq=3)
        assert ([event.seq for event in page.events], page.has_more) == ([4, 5], False)

    async def test_an_event_past_64_kib_has_a_page_of_its_own(self, store: Store) -> None:
        began = await a_begun_run(store)
        texts = ["a", "x" * 65 * 1024, "b"]
        await store.run_log.append(
            began.replica_id, [an_event(began.run, seq, text) for seq, text in enumerate(texts, start=2)]
        )
        pages = [await _page(store, began, after_seq) for after_seq in (1, 2, 3)]
        assert [[event.seq for event in page.events] for page in pages] == [[2], [3], [4]]
        assert [page.has_more for page in pages] == [True, True, False]

    async def test_one_batch_may_hold_events_of_many_runs(self, store: Store) -> None:
        first = await a_begun_run(store)
        second = await a_begun_run(store, first.replica_id)
        batch = [an_event(first.run, 2, "one"), an_event(second.run, 2, "two")]
        assert await store.run_log.append(first.replica_id, batch)
        assert await _read(store, first, after_seq=1) == batch[:1]
        assert await _read(store, second, after_seq=1) == batch[1:]

    async def test_another_workspace_reads_nothing(self, store: Store) -> None:
        began = await a_begun_run(store)
        assert await store.run_log.read(new_id(), began.run.run_id, 0) == LogPage([], has_more=False)

    async def test_a_batch_written_twice_is_there_once(self, store: Store) -> None:
        began = await a_begun_run(store)
        batch = [an_event(began.run, 2, "It "), an_event(began.run, 3, "rains.")]
        assert await store.run_log.append(began.replica_id, batch)
        assert await store.run_log.append(began.replica_id, batch)
        assert await _read(store, began, after_seq=1) == batch

    async def test_a_seq_never_changes_its_payload(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, 2, "first")])
        await store.run_log.append(began.replica_id, [an_event(began.run, 2, "second")])
        assert await _read(store, began, after_seq=1) == [an_event(began.run, 2, "first")]

    async def test_a_fenced_replica_writes_nothing(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.replicas.leave(began.replica_id)
        assert not await store.run_log.append(began.replica_id, [an_event(began.run, 2, "late")])
        assert not await store.run_log.finish(began.replica_id, _ending(began, Cancelled()))
        assert await _read(store, began, after_seq=1) == []
        async with store.unit_of_work.reading() as work:
            assert (await work.runs.get(began.run.run_id, began.caller)).state is RunState.RUNNING

    async def test_a_replica_whose_lease_ran_out_writes_nothing_even_before_it_is_fenced(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.pass_time(timedelta(seconds=11))
        assert not await store.run_log.append(began.replica_id, [an_event(began.run, 2, "late")])

    async def test_a_replica_that_never_joined_writes_nothing(self, store: Store) -> None:
        began = await a_begun_run(store)
        assert not await store.run_log.append(new_id(), [an_event(began.run, 2, "forged")])
        assert await _read(store, began, after_seq=1) == []

    @pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
    async def test_text_that_cannot_be_stored_is_refused_and_nothing_of_its_batch_is_written(
        self, store: Store, text: str
    ) -> None:
        began = await a_begun_run(store)
        with pytest.raises(InvalidInput):
            await store.run_log.append(began.replica_id, [an_event(began.run, 2, "good"), an_event(began.run, 3, text)])
        assert await _read(store, began, after_seq=1) == []

    @pytest.mark.parametrize(
        ("outcome", "state", "status"),
        [
            (FinishReason.STOP, RunState.COMPLETED, MessageStatus.COMPLETE),
            (FinishReason.LENGTH, RunState.COMPLETED, MessageStatus.INCOMPLETE),
            (Failed("MODEL_STALLED", "the model sent nothing"), RunState.FAILED, MessageStatus.INCOMPLETE),
            (Cancelled(), RunState.CANCELLED, MessageStatus.CANCELLED),
        ],
    )
    async def test_the_end_is_in_log_message_and_run_together(
        self, store: Store, outcome: FinishReason | Failed | Cancelled, state: RunState, status: MessageStatus
    ) -> None:
        began = await a_begun_run(store)
        ending = _ending(began, outcome)
        assert await store.run_log.finish(began.replica_id, ending)
        async with store.unit_of_work.reading() as work:
            run = await work.runs.get(began.run.run_id, began.caller)
            message = await work.messages.get(
                began.caller.workspace_id, began.conversation.conversation_id, began.answer.message_id
            )
        assert (run, message) == (ending.run, ending.message)
        assert (run.state, message.status, message.content) == (state, status, "It rains.")
        assert await _read(store, began, after_seq=1) == ending.events

    async def test_the_event_of_a_completed_run_carries_the_stored_message(self, store: Store) -> None:
        began = await a_begun_run(store)
        ending = _ending(began, FinishReason.STOP)
        await store.run_log.finish(began.replica_id, ending)
        [last] = await _read(store, began, after_seq=2)
        assert last.body == Completed(ending.message, FinishReason.STOP)

    async def test_an_ending_written_twice_changes_nothing(self, store: Store) -> None:
        began = await a_begun_run(store)
        ending = _ending(began, FinishReason.STOP)
        assert await store.run_log.finish(began.replica_id, ending)
        assert await store.run_log.finish(began.replica_id, ending)
        assert await _read(store, began, after_seq=1) == ending.events

    async def test_a_run_ends_once(self, store: Store) -> None:
        began = await a_begun_run(store)
        ending = _ending(began, FinishReason.STOP)
        await store.run_log.finish(began.replica_id, ending)
        await store.run_log.finish(began.replica_id, _ending(began, Cancelled()))
        assert await _read(store, began, after_seq=1) == ending.events
        async with store.unit_of_work.reading() as work:
            assert await work.runs.get(began.run.run_id, began.caller) == ending.run

    async def test_a_survey_tells_how_far_watched_runs_have_come_and_who_makes_them(self, store: Store) -> None:
        running = await a_begun_run(store)
        ended, unwatched = await a_begun_run(store), await a_begun_run(store)
        await store.run_log.append(
            running.replica_id, [an_event(running.run, 2, "It "), an_event(running.run, 3, "is")]
        )
        await store.run_log.finish(ended.replica_id, _ending(ended, FinishReason.STOP))
        survey = await store.run_log.survey(unwatched.replica_id, [_key(running), _key(ended)])
        assert sorted(survey.standings, key=attrgetter("last_seq"), reverse=True) == [
            Standing(running.run.run_id, running.replica_id, 3),
            Standing(ended.run.run_id, ended.replica_id, 3),
        ]
        assert survey.to_cancel == []

    async def test_a_survey_names_the_new_owner_of_an_adopted_run(self, store: Store) -> None:
        began, me = await a_begun_run(store), new_id()
        await store.replicas.join(me)
        await store.replicas.leave(began.replica_id)
        await store.replicas.adopt_orphans(me, [], 10)
        survey = await store.run_log.survey(new_id(), [_key(began)])
        assert survey.standings == [Standing(began.run.run_id, me, 2)]

    async def test_a_survey_leaves_out_what_was_erased_or_never_was(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.finish(began.replica_id, _ending(began, Cancelled()))
        await _erase(store, began)
        elsewhere = new_id(), (await a_begun_run(store)).run.run_id
        survey = await store.run_log.survey(began.replica_id, [_key(began), elsewhere, (new_id(), new_id())])
        assert survey == Survey([], [])

    async def test_a_survey_names_the_replicas_own_running_runs_that_are_to_be_cancelled(self, store: Store) -> None:
        mine = await a_begun_run(store)
        await a_begun_run(store, mine.replica_id)
        foreign, ended = await a_begun_run(store), await a_begun_run(store, mine.replica_id)
        for began in (mine, foreign, ended):
            await _ask_to_cancel(store, began)
        await store.run_log.finish(ended.replica_id, _ending(ended, Cancelled()))
        survey = await store.run_log.survey(mine.replica_id, [_key(mine)])
        assert survey.to_cancel == [mine.run.run_id]
        assert survey.standings == [Standing(mine.run.run_id, mine.replica_id, 1)]

    async def test_a_packed_log_is_the_same_from_every_cursor(self, store: Store) -> None:
        began = await _a_run_of_three_attempts(store)
        before = [await _read(store, began, after_seq) for after_seq in range(13)]
        assert await store.run_log.pack(NOW + SECOND, 10) == 1
        assert [await _read(store, began, after_seq) for after_seq in range(13)] == before
        assert len(before[0]) == 12

    @pytest.mark.parametrize("outcome", [FinishReason.STOP, Cancelled(), Failed("MODEL_STALLED", "nothing came")])
    async def test_every_kind_of_end_can_be_packed(
        self, store: Store, outcome: FinishReason | Failed | Cancelled
    ) -> None:
        began = await a_begun_run(store)
        ending = _ending(began, outcome)
        await store.run_log.finish(began.replica_id, ending)
        assert await store.run_log.pack(NOW + SECOND, 10) == 1
        assert await _read(store, began, after_seq=1) == ending.events
        survey = await store.run_log.survey(new_id(), [_key(began)])
        assert survey.standings == [Standing(began.run.run_id, began.replica_id, 3)]

    async def test_a_packed_log_has_pages_of_500_events(self, store: Store) -> None:
        began = await a_begun_run(store)
        await _say(store, began, ["x"] * 2_300)
        log = await _read(store, began)
        await store.run_log.pack(NOW + SECOND, 10)
        assert [event.seq for event in log] == list(range(1, 2_303))
        assert await _read(store, began) == log
        pages = [await _page(store, began, after_seq) for after_seq in range(0, 2_303, 100)]
        assert max(len(page.events) for page in pages) == 500

    async def test_a_packed_log_has_pages_of_64_kib_but_for_one_event(self, store: Store) -> None:
        began = await a_begun_run(store)
        await _say(store, began, ["ä" * 16 * 1024, "x" * 32 * 1024, "y", "z" * 65 * 1024, "!"])
        await store.run_log.pack(NOW + SECOND, 10)
        pages = [await _page(store, began, after_seq) for after_seq in (1, 3, 4, 5)]
        assert [[event.seq for event in page.events] for page in pages] == [[2, 3], [4], [5], [6, 7]]
        assert [page.has_more for page in pages] == [True, True, True, False]

    async def test_running_and_young_runs_are_not_packed(self, store: Store) -> None:
        await a_begun_run(store)
        ended = await a_begun_run(store)
        await store.run_log.finish(ended.replica_id, _ending(ended, Cancelled()))
        assert await store.run_log.pack(NOW, 10) == 0

    async def test_a_run_is_packed_once(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.finish(began.replica_id, _ending(began, FinishReason.STOP))
        assert [await store.run_log.pack(NOW + SECOND, 10) for _ in range(2)] == [1, 0]
        assert len(await _read(store, began)) == 3

    async def test_no_more_runs_are_packed_than_asked_for(self, store: Store) -> None:
        for _ in range(3):
            began = await a_begun_run(store)
            await store.run_log.finish(began.replica_id, _ending(began, FinishReason.STOP))
        assert [await store.run_log.pack(NOW + SECOND, 2) for _ in range(3)] == [2, 1, 0]

    async def test_an_ending_written_again_after_packing_changes_nothing(self, store: Store) -> None:
        began = await a_begun_run(store)
        ending = _ending(began, FinishReason.STOP)
        await store.run_log.finish(began.replica_id, ending)
        await store.run_log.pack(NOW + SECOND, 10)
        log = await _read(store, began)
        assert await store.run_log.finish(began.replica_id, ending)
        assert await _read(store, began) == log

    async def test_a_packed_run_is_erased_with_its_conversation(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.finish(began.replica_id, _ending(began, FinishReason.STOP))
        await store.run_log.pack(NOW + SECOND, 10)
        await _erase(store, began)
        assert await _read(store, began) == []


async def _a_run_of_three_attempts(store: Store) -> Began:
    """A run that has ended: 12 events, with text in each attempt, handed over once and cut off by a crash once."""
    began = await a_begun_run(store)
    run, texts = began.run, ("void ", "🌧 also void\r\n", "It rains.")
    for attempt, text in enumerate(texts):
        pieces = [text[:2], "", text[2:]][attempt == 2 :]
        events = [
            an_event(run, run.last_seq + place, piece, create_time=NOW - place * timedelta(microseconds=1501))
            for place, piece in enumerate(pieces, start=1)
        ]
        assert await store.run_log.append(run.owner, events)
        if attempt < 2:
            await store.replicas.leave(run.owner)
            heir = new_id()
            await store.replicas.join(heir)
            [(run, _)] = await store.replicas.adopt_orphans(heir, [], 1)
    run = replace(run, last_seq=run.last_seq + 2)
    ending = end(run, replace(began.answer, content=texts[-1]), FinishReason.STOP, usage=USAGE, tail=[], now=NOW)
    assert await store.run_log.finish(run.owner, ending)
    return began


async def _say(store: Store, began: Began, texts: Sequence[str]) -> None:
    """Ends the run with an answer in these pieces."""
    events = [an_event(began.run, seq, text) for seq, text in enumerate(texts, start=2)]
    answer = replace(began.answer, content="".join(texts))
    ending = end(began.run, answer, FinishReason.STOP, usage=USAGE, tail=events, now=NOW)
    assert await store.run_log.finish(began.replica_id, ending)


async def _ask_to_cancel(store: Store, began: Began) -> None:
    async with store.unit_of_work() as work:
        await work.runs.request_cancel(began.run.run_id, began.caller)
        await work.commit()


async def _erase(store: Store, began: Began) -> None:
    async with store.unit_of_work() as work:
        await work.conversations.hide(began.conversation.conversation_id, began.caller, NOW)
        await work.conversations.erase_hidden()
        await work.commit()


def _key(began: Began) -> tuple[UUID, UUID]:
    return began.run.workspace_id, began.run.run_id


async def _read(store: Store, began: Began, after_seq: int = 0) -> Sequence[RunEvent]:
    """Returns all events after the cursor, page by page."""
    events: list[RunEvent] = []
    while True:
        page = await _page(store, began, events[-1].seq if events else after_seq)
        events.extend(page.events)
        if not page.has_more:
            return events


async def _page(store: Store, began: Began, after_seq: int = 0) -> LogPage:
    return await store.run_log.read(began.run.workspace_id, began.run.run_id, after_seq)


def _ending(began: Began, outcome: FinishReason | Failed | Cancelled) -> Ending:
    answer = replace(began.answer, content="It rains.")
    return end(began.run, answer, outcome, usage=USAGE, tail=[an_event(began.run, 2, "It rains.")], now=NOW)


class TestFakeRunLog(RunLogContract):
    @pytest.fixture
    def store(self, in_memory: Store) -> Store:
        return in_memory


class TestPostgresRunLog(RunLogContract):
    @pytest.fixture
    def store(self, in_postgres: Store) -> Store:
        return in_postgres

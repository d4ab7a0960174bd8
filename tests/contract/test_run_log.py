"""What every log of events owes its callers."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.conversation import MessageStatus, PageRequest, Usage
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

    async def test_reading_goes_on_after_a_cursor_up_to_a_limit(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, seq, "x") for seq in range(2, 8)])
        assert [event.seq for event in await _read(store, began, after_seq=3, limit=2)] == [4, 5]
        assert await _read(store, began, after_seq=7) == []

    async def test_one_batch_may_hold_events_of_many_runs(self, store: Store) -> None:
        first = await a_begun_run(store)
        second = await a_begun_run(store, first.replica_id)
        batch = [an_event(first.run, 2, "one"), an_event(second.run, 2, "two")]
        assert await store.run_log.append(first.replica_id, batch)
        assert await _read(store, first, after_seq=1) == batch[:1]
        assert await _read(store, second, after_seq=1) == batch[1:]

    async def test_another_workspace_reads_nothing(self, store: Store) -> None:
        began = await a_begun_run(store)
        assert await store.run_log.read(new_id(), began.run.run_id, 0, 10) == []

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
            [_, message] = await work.messages.branch(
                began.caller.workspace_id, began.answer.message_id, PageRequest(10)
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


async def _read(store: Store, began: Began, after_seq: int = 0, limit: int = 100) -> list[RunEvent]:
    return list(await store.run_log.read(began.run.workspace_id, began.run.run_id, after_seq, limit))


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

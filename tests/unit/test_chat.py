"""Asking for an answer and watching it, as a caller sees it."""

import asyncio
from dataclasses import replace

import pytest

from application.hub import QUEUE_LIMIT
from domain.conversation import MessageRole, MessageStatus
from domain.errors import (
    ConversationNotFound,
    CursorAhead,
    DatabaseUnavailable,
    MessageNotFound,
    ModelNotFound,
    PromptTooLong,
    ReplicaDraining,
    RequestIdReused,
    RunInProgress,
    RunNotFound,
)
from domain.run import Cancelled, Completed, Question, RunState, SendOptions, Started
from tests.builders import a_caller, new_id
from tests.fakes.database import FakeDatabase
from tests.unit.replica import Replica, Watcher
from tests.unit.waiting import settled, until


async def send(replica: Replica, question: Question) -> Watcher:
    return Watcher(await replica.chat.send(replica.caller, question))


async def a_question(replica: Replica, **changes: object) -> Question:
    conversation = await replica.conversation()
    return replace(Question(conversation.conversation_id, "Will it rain?"), **changes)  # type: ignore[arg-type]


async def finished(replica: Replica, watcher: Watcher, number: int = 1) -> Watcher:
    """Returns the watcher after the model has answered its first call, or a later one."""
    (await replica.call(number)).finish()
    await watcher.all()
    return watcher


# Sending


async def test_the_first_event_names_what_was_stored(replica: Replica) -> None:
    question = await a_question(replica)
    event = await (await send(replica, question)).next()
    messages = replica.database.tables.messages.values()
    asked = next(message for message in messages if message.role is MessageRole.USER)
    answer = next(message for message in messages if message.role is MessageRole.ASSISTANT)
    assert event.seq == 1
    assert event.body == Started(question.conversation_id, asked.message_id, answer.message_id, "small")


async def test_question_and_answer_are_stored_before_anything_is_shown(replica: Replica) -> None:
    await send(replica, await a_question(replica))
    asked, answer = sorted(replica.database.tables.messages.values(), key=lambda message: message.depth)
    assert (asked.content, asked.status, asked.parent_message_id) == ("Will it rain?", MessageStatus.COMPLETE, None)
    assert (answer.status, answer.parent_message_id, answer.depth) == (MessageStatus.STREAMING, asked.message_id, 2)


async def test_the_answer_becomes_the_conversation_s_leaf(replica: Replica) -> None:
    question = await a_question(replica)
    replica.clock.advance(minutes=5)
    event = await (await send(replica, question)).next()
    conversation = replica.database.tables.conversations[question.conversation_id]
    assert isinstance(event.body, Started)
    assert conversation.leaf_message_id == event.body.message_id
    assert conversation.update_time == replica.clock.now()


async def test_the_next_question_follows_the_leaf(replica: Replica) -> None:
    conversation = await replica.conversation()
    first = await finished(replica, await replica.ask(conversation))
    second = await replica.ask(conversation)
    await second.next()
    answered = replica.message(second.run_id)
    asked = replica.database.tables.messages[replica.caller.workspace_id, answered.parent_message_id or new_id()]
    assert asked.parent_message_id == replica.message(first.run_id).message_id
    assert (asked.depth, answered.depth) == (3, 4)


async def test_a_question_may_branch_off_an_earlier_message(replica: Replica) -> None:
    conversation = await replica.conversation()
    first = await finished(replica, await replica.ask(conversation, "One?"))
    await finished(replica, await replica.ask(conversation, "Two?"), 2)
    parent = replica.message(first.run_id).message_id
    await send(replica, Question(conversation.conversation_id, "Other?", parent_message_id=parent))
    assert [turn.text for turn in (await replica.call(3)).request.turns] == ["One?", "Other?"]


async def test_a_branch_from_the_past_may_be_asked_while_another_is_answered(replica: Replica) -> None:
    conversation = await replica.conversation()
    first = await finished(replica, await replica.ask(conversation))
    await replica.ask(conversation)
    parent = replica.message(first.run_id).message_id
    await send(replica, Question(conversation.conversation_id, "Other?", parent_message_id=parent))
    await until(lambda: replica.engine.running == 2)


async def test_an_answer_that_is_being_written_cannot_be_asked_about(replica: Replica) -> None:
    question = await a_question(replica)
    watcher = await send(replica, question)
    await watcher.next()
    with pytest.raises(RunInProgress) as refusal:
        await send(replica, question)
    assert refusal.value.metadata == {"run_id": str(watcher.run_id)}


async def test_a_message_of_another_conversation_is_no_parent(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    question = await a_question(replica, parent_message_id=replica.message(watcher.run_id).message_id)
    with pytest.raises(MessageNotFound):
        await send(replica, question)


async def test_a_missing_message_is_no_parent(replica: Replica) -> None:
    with pytest.raises(MessageNotFound):
        await send(replica, await a_question(replica, parent_message_id=new_id()))


async def test_a_missing_conversation_is_not_found(replica: Replica) -> None:
    with pytest.raises(ConversationNotFound):
        await send(replica, Question(new_id(), "Will it rain?"))


async def test_a_stranger_s_conversation_is_not_found(replica: Replica) -> None:
    question = await a_question(replica)
    with pytest.raises(ConversationNotFound):
        await replica.chat.send(a_caller(), question)


async def test_a_missing_model_is_not_found(replica: Replica) -> None:
    with pytest.raises(ModelNotFound):
        await send(replica, await a_question(replica, options=SendOptions(model="huge")))


async def test_a_question_too_long_for_the_model_is_refused(replica: Replica) -> None:
    question = await a_question(replica, content="x" * 3_000)
    with pytest.raises(PromptTooLong):
        await send(replica, question)
    await send(replica, replace(question, options=SendOptions(model="large")))


async def test_a_refused_question_leaves_nothing_behind(replica: Replica) -> None:
    with pytest.raises(MessageNotFound):
        await send(replica, await a_question(replica, request_id="r", parent_message_id=new_id()))
    tables = replica.database.tables
    assert [tables.messages, tables.runs, tables.events, tables.requests] == [{}] * 4


async def test_a_database_that_is_away_refuses_a_question(replica: Replica) -> None:
    question = await a_question(replica)
    replica.unit_of_work.unavailable = 1
    with pytest.raises(DatabaseUnavailable):
        await send(replica, question)


# The same question again


async def test_the_same_request_attaches_to_the_run_that_goes_on(replica: Replica) -> None:
    question = await a_question(replica, request_id="r", digest=b"1")
    first, second = await send(replica, question), await send(replica, question)
    call = await replica.call()
    call.say("Yes.")
    call.finish()
    assert await first.all() == await second.all() == replica.logged(first.run_id)
    assert len(replica.model.calls) == 1


async def test_the_same_request_attaches_to_the_run_that_ended(replica: Replica) -> None:
    question = await a_question(replica, request_id="r", digest=b"1")
    first = await finished(replica, await send(replica, question))
    assert await (await send(replica, question)).all() == first.seen


async def test_fifty_equal_requests_at_once_make_one_run(replica: Replica) -> None:
    question = await a_question(replica, request_id="r", digest=b"1")
    watchers = await asyncio.gather(*(send(replica, question) for _ in range(50)))
    (await replica.call()).finish()
    streams = [await watcher.all() for watcher in watchers]
    assert all(stream == streams[0] for stream in streams)
    assert len(replica.database.tables.runs) == len(replica.model.calls) == 1


async def test_another_question_under_the_same_request_id_is_refused(replica: Replica) -> None:
    question = await a_question(replica, request_id="r", digest=b"1")
    await send(replica, question)
    with pytest.raises(RequestIdReused):
        await send(replica, replace(question, digest=b"2"))


async def test_two_callers_may_use_the_same_request_id(replica: Replica) -> None:
    await send(replica, await a_question(replica, request_id="r", digest=b"1"))
    replica.caller = a_caller()
    await send(replica, await a_question(replica, request_id="r", digest=b"2"))


async def test_a_request_id_is_free_again_after_a_day(replica: Replica) -> None:
    question = await a_question(replica, request_id="r", digest=b"1")
    await finished(replica, await send(replica, question))
    replica.clock.advance(hours=25)
    await replica.registry.join(replica.engine.replica_id)
    await send(replica, replace(question, digest=b"2"))


# Leaving


async def test_whoever_leaves_does_not_stop_the_run(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    await watcher.leave()
    await settled()
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_whoever_asked_for_it_takes_the_run_along(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica, options=SendOptions(cancel_on_disconnect=True)))
    await watcher.next()
    await watcher.leave()
    assert (await replica.has_ended(watcher.run_id)).state is RunState.CANCELLED


async def test_cancel_on_disconnect_does_not_bind_who_attached(replica: Replica) -> None:
    options = SendOptions(cancel_on_disconnect=True)
    question = await a_question(replica, request_id="r", digest=b"1", options=options)
    first, second = await send(replica, question), await send(replica, question)
    await first.next()
    await second.next()
    await second.leave()
    await settled()
    assert replica.run(first.run_id).state is RunState.RUNNING


async def test_cancel_on_disconnect_does_not_bind_who_streams_the_run(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica, options=SendOptions(cancel_on_disconnect=True)))
    await watcher.next()
    other = Watcher(await replica.chat.stream(replica.caller, watcher.run_id, 0))
    await other.next()
    await other.leave()
    await settled()
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_whoever_stays_to_the_end_cancels_nothing(replica: Replica) -> None:
    question = await a_question(replica, options=SendOptions(cancel_on_disconnect=True))
    watcher = await finished(replica, await send(replica, question))
    assert isinstance(watcher.seen[-1].body, Completed)


async def leave_during_begin(replica: Replica, question: Question) -> None:
    """Sends the question and leaves while its transaction waits for another one."""
    async with replica.database.turn:
        sending = asyncio.create_task(replica.chat.send(replica.caller, question))
        await settled()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_whoever_leaves_while_the_run_is_begun_leaves_no_half_run(replica: Replica) -> None:
    await leave_during_begin(replica, await a_question(replica))
    await until(lambda: replica.database.tables.runs)
    (await replica.call()).finish()
    run = next(iter(replica.database.tables.runs.values()))
    assert (await replica.has_ended(run.run_id)).state is RunState.COMPLETED


async def test_whoever_leaves_while_the_run_is_begun_can_come_back_to_it(replica: Replica) -> None:
    question = await a_question(replica, request_id="r", digest=b"1")
    await leave_during_begin(replica, question)
    watcher = await finished(replica, await send(replica, question))
    assert watcher.seen == replica.logged(watcher.run_id)
    assert len(replica.model.calls) == 1


async def test_whoever_leaves_while_the_run_is_begun_is_forgotten(replica: Replica) -> None:
    await leave_during_begin(replica, await a_question(replica))
    await replica.call()
    assert not replica.hub.watched


async def test_whoever_leaves_while_the_run_is_begun_may_take_it_along(replica: Replica) -> None:
    await leave_during_begin(replica, await a_question(replica, options=SendOptions(cancel_on_disconnect=True)))
    await until(lambda: replica.database.tables.runs)
    run = next(iter(replica.database.tables.runs.values()))
    assert (await replica.has_ended(run.run_id)).state is RunState.CANCELLED


async def test_whoever_leaves_a_question_that_is_refused_hears_nothing(replica: Replica) -> None:
    await leave_during_begin(replica, await a_question(replica, parent_message_id=new_id()))
    await settled()
    assert not replica.database.tables.runs


async def test_a_watcher_that_left_is_forgotten(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    await watcher.leave()
    assert not replica.hub.watched


# Streaming a run


async def test_a_run_can_be_watched_from_its_first_event(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    again = Watcher(await replica.chat.stream(replica.caller, watcher.run_id, 0))
    assert await again.all() == watcher.seen


async def test_a_run_can_be_watched_from_a_cursor(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    rest = Watcher(await replica.chat.stream(replica.caller, watcher.run_id, 2))
    assert await rest.all() == watcher.seen[2:]


async def test_nothing_is_left_of_an_ended_run_after_its_last_event(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    rest = Watcher(await replica.chat.stream(replica.caller, watcher.run_id, len(watcher.seen)))
    assert await rest.all() == []


async def test_a_cursor_past_the_newest_event_is_refused(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    with pytest.raises(CursorAhead):
        await replica.chat.stream(replica.caller, watcher.run_id, len(watcher.seen) + 1)


async def test_a_cursor_past_a_running_run_is_refused_with_the_newest(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    with pytest.raises(CursorAhead) as refusal:
        await replica.chat.stream(replica.caller, watcher.run_id, 2)
    assert refusal.value.metadata == {"last_seq": "1"}


async def test_a_stranger_s_run_is_not_found(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    with pytest.raises(RunNotFound):
        await replica.chat.stream(a_caller(), watcher.run_id, 0)


async def test_a_run_that_was_erased_ends_its_slow_watcher(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    slow = Watcher(await replica.chat.stream(replica.caller, watcher.run_id, 0))
    replica.database.tables.events.clear()
    with pytest.raises(RunNotFound):
        await slow.all()


async def test_a_run_that_was_erased_ends_the_watcher_whose_queue_overflowed(replica: Replica) -> None:
    slow = await replica.ask()
    await slow.next()
    call = await replica.call()
    for number in range(QUEUE_LIMIT):
        call.say("x")
        await replica.has_logged(slow.run_id, number + 2)
    call.finish()
    await replica.has_ended(slow.run_id)
    replica.database.tables.events.clear()
    with pytest.raises(RunNotFound):
        await slow.all()


# Looking and cancelling


async def test_a_run_can_be_looked_at(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    run = await replica.chat.run(replica.caller, watcher.run_id)
    assert (run.state, run.last_seq) == (RunState.COMPLETED, 3)


async def test_a_missing_run_cannot_be_looked_at(replica: Replica) -> None:
    with pytest.raises(RunNotFound):
        await replica.chat.run(replica.caller, new_id())


async def test_a_cancelled_run_is_returned_as_it_ended(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    run = await replica.chat.cancel(replica.caller, watcher.run_id)
    assert run.state is RunState.CANCELLED
    assert (await watcher.all())[-1].body == Cancelled()


async def test_cancelling_an_ended_run_returns_it_as_it_is(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    assert (await replica.chat.cancel(replica.caller, watcher.run_id)).state is RunState.COMPLETED


async def test_cancelling_again_returns_the_cancelled_run(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    await replica.chat.cancel(replica.caller, watcher.run_id)
    assert (await replica.chat.cancel(replica.caller, watcher.run_id)).state is RunState.CANCELLED


async def test_a_stranger_cannot_cancel_a_run(replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    with pytest.raises(RunNotFound):
        await replica.chat.cancel(a_caller(), watcher.run_id)
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_a_run_made_elsewhere_is_marked(database: FakeDatabase, replica: Replica) -> None:
    watcher = await send(replica, await a_question(replica))
    await watcher.next()
    run = await Replica(database).chat.cancel(replica.caller, watcher.run_id)
    assert (run.state, run.cancel_requested) == (RunState.RUNNING, True)


async def test_a_draining_replica_still_shows_runs(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    await replica.engine.drain(0)
    with pytest.raises(ReplicaDraining):
        await send(replica, await a_question(replica))
    again = Watcher(await replica.chat.stream(replica.caller, watcher.run_id, 0))
    assert await again.all() == watcher.seen

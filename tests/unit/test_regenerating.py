"""Another answer beside an old one, and questions asked in other words."""

import asyncio
from dataclasses import replace

import pytest

from domain.conversation import Conversation, Message, MessageStatus
from domain.errors import (
    InvalidField,
    MessageNotFound,
    ModelNotFound,
    PromptTooLong,
    ReplicaDraining,
    RequestIdReused,
    RunInProgress,
    RunNotFound,
)
from domain.run import Question, Regeneration, RunState, SendOptions, Started
from tests.builders import a_caller, new_id
from tests.unit.replica import Replica, Watcher
from tests.unit.waiting import settled, until


async def answered(replica: Replica, conversation: Conversation, content: str, said: str) -> Message:
    """Returns the finished answer to a question at the end of the conversation."""
    return await written(replica, await replica.ask(conversation, content), said)


async def written(replica: Replica, watcher: Watcher, said: str) -> Message:
    """Returns the message of the newest run after the model has said this."""
    call = await replica.call(len(replica.database.tables.runs))
    call.say(said)
    call.finish()
    await watcher.all()
    return replica.message(watcher.run_id)


async def regenerate(replica: Replica, answer: Message, **changes: object) -> Watcher:
    wish = replace(Regeneration(answer.message_id), **changes)  # type: ignore[arg-type]
    return Watcher(await replica.chat.regenerate(replica.caller, wish))


async def edit(replica: Replica, edited: Message, content: str) -> Watcher:
    question = Question(edited.conversation_id, content, edited_message_id=edited.message_id)
    return Watcher(await replica.chat.send(replica.caller, question))


def question_to(replica: Replica, answer: Message) -> Message:
    return replica.database.tables.messages[replica.caller.workspace_id, answer.question_id()]


@pytest.fixture
async def conversation(replica: Replica) -> Conversation:
    return await replica.conversation()


@pytest.fixture
async def answer(replica: Replica, conversation: Conversation) -> Message:
    return await answered(replica, conversation, "Will it rain?", "Yes.")


# Answers


async def test_the_new_answer_is_a_sibling_of_the_old_one(replica: Replica, answer: Message) -> None:
    new = await written(replica, await regenerate(replica, answer), "No.")
    assert (new.parent_message_id, new.depth) == (answer.parent_message_id, answer.depth)
    assert (new.content, new.status) == ("No.", MessageStatus.COMPLETE)
    assert answer in replica.database.tables.messages.values()


async def test_the_first_event_names_the_question_and_the_new_answer(replica: Replica, answer: Message) -> None:
    event = await (await regenerate(replica, answer)).next()
    new = replica.message(event.run_id)
    assert event.body == Started(answer.conversation_id, answer.question_id(), new.message_id, "small")


async def test_no_question_is_added(replica: Replica, answer: Message) -> None:
    await written(replica, await regenerate(replica, answer), "No.")
    assert len(replica.database.tables.messages) == 3


async def test_the_new_answer_becomes_the_leaf(replica: Replica, conversation: Conversation, answer: Message) -> None:
    replica.clock.advance(minutes=5)
    await replica.registry.join(replica.engine.replica_id)
    await (watcher := await regenerate(replica, answer)).next()
    stored = replica.database.tables.conversations[conversation.conversation_id]
    assert stored.leaf_message_id == replica.message(watcher.run_id).message_id
    assert stored.update_time == replica.clock.now()


async def test_the_model_is_shown_the_branch_up_to_the_question(
    replica: Replica, conversation: Conversation, answer: Message
) -> None:
    second = await answered(replica, conversation, "Sure?", "Quite.")
    await answered(replica, conversation, "Really?", "Well.")
    await regenerate(replica, second)
    assert [turn.text for turn in (await replica.call(4)).request.turns] == ["Will it rain?", "Yes.", "Sure?"]


async def test_the_options_say_how_and_not_the_old_answer(replica: Replica, answer: Message) -> None:
    await regenerate(replica, answer, options=SendOptions(model="large", temperature=0.5, max_output_tokens=7))
    request = (await replica.call(2)).request
    assert (request.model, request.temperature, request.max_output_tokens) == ("large", 0.5, 7)


async def test_two_more_answers_may_be_made_at_once(replica: Replica, answer: Message) -> None:
    first, second = await regenerate(replica, answer), await regenerate(replica, answer)
    await first.next()
    await second.next()
    assert replica.message(first.run_id).parent_message_id == replica.message(second.run_id).parent_message_id
    assert replica.engine.running == 2


async def test_an_answer_that_failed_can_be_made_anew(replica: Replica, conversation: Conversation) -> None:
    watcher = await replica.ask(conversation)
    (await replica.call()).hang_up()
    await watcher.all()
    failed = replica.message(watcher.run_id)
    assert failed.status is MessageStatus.FAILED
    assert (await written(replica, await regenerate(replica, failed), "Yes.")).status is MessageStatus.COMPLETE


async def test_an_answer_that_is_being_written_cannot_be_made_anew(
    replica: Replica, conversation: Conversation
) -> None:
    watcher = await replica.ask(conversation)
    await watcher.next()
    with pytest.raises(RunInProgress) as refusal:
        await regenerate(replica, replica.message(watcher.run_id))
    assert refusal.value.metadata == {"run_id": str(watcher.run_id)}


async def test_a_question_is_not_regenerated(replica: Replica, answer: Message) -> None:
    with pytest.raises(InvalidField, match="message_id"):
        await regenerate(replica, question_to(replica, answer))


async def test_a_missing_answer_is_not_found(replica: Replica, answer: Message) -> None:
    with pytest.raises(MessageNotFound):
        await regenerate(replica, replace(answer, message_id=new_id()))


async def test_a_stranger_s_answer_is_not_found(replica: Replica, answer: Message) -> None:
    with pytest.raises(MessageNotFound):
        await replica.chat.regenerate(a_caller(), Regeneration(answer.message_id))


async def test_an_answer_of_a_deleted_conversation_is_not_found(replica: Replica, answer: Message) -> None:
    await replica.conversations.delete(replica.caller, answer.conversation_id)
    with pytest.raises(MessageNotFound):
        await regenerate(replica, answer)


async def test_a_missing_model_is_not_found(replica: Replica, answer: Message) -> None:
    with pytest.raises(ModelNotFound):
        await regenerate(replica, answer, options=SendOptions("huge"))


async def test_a_question_too_long_for_the_other_model_is_that_model_s_fault(
    replica: Replica, conversation: Conversation
) -> None:
    watcher = await replica.ask(conversation, "x" * 3_000, model="large")
    long = await written(replica, watcher, "Yes.")
    with pytest.raises(PromptTooLong) as refusal:
        await regenerate(replica, long)
    assert refusal.value.field == "options.model"
    await regenerate(replica, long, options=SendOptions("large"))


async def test_what_was_refused_leaves_its_request_id_free(replica: Replica, answer: Message) -> None:
    with pytest.raises(InvalidField):
        await regenerate(replica, question_to(replica, answer), request_id="r", digest=b"1")
    await regenerate(replica, answer, request_id="r", digest=b"2")


async def test_a_replica_that_drains_makes_nothing_anew(replica: Replica, answer: Message) -> None:
    await replica.engine.drain(0)
    with pytest.raises(ReplicaDraining):
        await regenerate(replica, answer)


# The same request again


async def test_the_same_request_attaches_to_the_run_that_goes_on(replica: Replica, answer: Message) -> None:
    first, second = [await regenerate(replica, answer, request_id="r", digest=b"1") for _ in range(2)]
    (await replica.call(2)).finish()
    assert await first.all() == await second.all() == replica.logged(first.run_id)


async def test_the_same_request_attaches_to_the_run_that_ended(replica: Replica, answer: Message) -> None:
    first = await regenerate(replica, answer, request_id="r", digest=b"1")
    await written(replica, first, "No.")
    assert await (await regenerate(replica, answer, request_id="r", digest=b"1")).all() == first.seen


async def test_fifty_equal_requests_at_once_make_one_answer(replica: Replica, answer: Message) -> None:
    watchers = await asyncio.gather(*(regenerate(replica, answer, request_id="r", digest=b"1") for _ in range(50)))
    (await replica.call(2)).finish()
    streams = [await watcher.all() for watcher in watchers]
    assert all(stream == streams[0] for stream in streams)
    assert (len(replica.database.tables.messages), len(replica.model.calls)) == (3, 2)


async def test_another_request_under_the_same_id_is_refused(replica: Replica, answer: Message) -> None:
    await regenerate(replica, answer, request_id="r", digest=b"1")
    with pytest.raises(RequestIdReused):
        await regenerate(replica, answer, request_id="r", digest=b"2")


async def test_a_repeated_request_in_a_deleted_conversation_finds_no_run(replica: Replica, answer: Message) -> None:
    await written(replica, await regenerate(replica, answer, request_id="r", digest=b"1"), "No.")
    await replica.conversations.delete(replica.caller, answer.conversation_id)
    with pytest.raises(RunNotFound):
        await regenerate(replica, answer, request_id="r", digest=b"1")


# Leaving


async def test_whoever_leaves_does_not_stop_the_run(replica: Replica, answer: Message) -> None:
    await (watcher := await regenerate(replica, answer)).next()
    await watcher.leave()
    await settled()
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_whoever_asked_for_it_takes_the_run_along(replica: Replica, answer: Message) -> None:
    watcher = await regenerate(replica, answer, options=SendOptions(cancel_on_disconnect=True))
    await watcher.next()
    await watcher.leave()
    assert (await replica.has_ended(watcher.run_id)).state is RunState.CANCELLED


# Questions


async def test_a_question_in_other_words_is_a_sibling_of_the_old_one(
    replica: Replica, conversation: Conversation, answer: Message
) -> None:
    old = question_to(replica, await answered(replica, conversation, "Sure?", "Quite."))
    new = question_to(replica, await written(replica, await edit(replica, old, "Really?"), "Yes."))
    assert (new.parent_message_id, new.depth) == (old.parent_message_id, old.depth) == (answer.message_id, 3)
    assert [turn.text for turn in replica.model.calls[-1].request.turns] == ["Will it rain?", "Yes.", "Really?"]


async def test_the_first_question_in_other_words_has_no_parent_either(replica: Replica, answer: Message) -> None:
    watcher = await edit(replica, question_to(replica, answer), "Will it snow?")
    new = question_to(replica, await written(replica, watcher, "No."))
    assert (new.parent_message_id, new.depth) == (None, 1)
    assert [turn.text for turn in replica.model.calls[-1].request.turns] == ["Will it snow?"]


async def test_a_question_may_be_edited_while_it_is_answered(replica: Replica, conversation: Conversation) -> None:
    watcher = await replica.ask(conversation)
    await watcher.next()
    await edit(replica, question_to(replica, replica.message(watcher.run_id)), "Will it snow?")
    await until(lambda: replica.engine.running == 2)


async def test_an_answer_is_not_edited(replica: Replica, answer: Message) -> None:
    with pytest.raises(InvalidField, match="edited_message_id"):
        await edit(replica, answer, "Perhaps.")


async def test_a_missing_question_is_not_edited(replica: Replica, answer: Message) -> None:
    with pytest.raises(MessageNotFound):
        await edit(replica, replace(answer, message_id=new_id()), "Will it snow?")


async def test_a_question_of_another_conversation_is_not_edited(replica: Replica, answer: Message) -> None:
    other = await replica.conversation()
    edited = replace(question_to(replica, answer), conversation_id=other.conversation_id)
    with pytest.raises(MessageNotFound):
        await edit(replica, edited, "Will it snow?")


def test_a_question_has_one_place() -> None:
    with pytest.raises(InvalidField, match="edited_message_id must be empty where parent_message_id is given"):
        Question(new_id(), "Why?", parent_message_id=new_id(), edited_message_id=new_id())

"""What is done now and then: deleted conversations go, request ids are forgotten."""

from dataclasses import replace

from application.housekeeping import Housekeeping
from domain.run import Question
from tests.unit.replica import Replica
from tests.unit.waiting import until


async def tidy(replica: Replica) -> None:
    await Housekeeping(replica.unit_of_work, replica.clock).tidy()


async def test_a_deleted_conversation_is_erased_with_all_that_hangs_on_it(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    run = replica.run(watcher.run_id)
    await replica.conversations.delete(replica.caller, run.conversation_id)
    await tidy(replica)
    tables = replica.database.tables
    assert [tables.conversations, tables.messages, tables.runs, tables.events] == [{}] * 4


async def test_a_deleted_conversation_is_kept_while_it_has_a_run(replica: Replica) -> None:
    conversation = await replica.conversation()
    watcher = await replica.ask(conversation)
    await watcher.next()
    replica.log.flowing.clear()
    await replica.conversations.delete(replica.caller, conversation.conversation_id)
    await tidy(replica)
    assert replica.database.tables.conversations
    replica.log.flowing.set()
    await replica.has_ended(watcher.run_id)
    await tidy(replica)
    assert not replica.database.tables.conversations


async def test_other_conversations_are_left_alone(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    await tidy(replica)
    assert replica.run(watcher.run_id)


async def test_request_ids_are_forgotten_after_a_day(replica: Replica) -> None:
    conversation = await replica.conversation()
    question = Question(conversation.conversation_id, "Why?", request_id="old", digest=b"1")
    await (await replica.chat.send(replica.caller, question)).aclose()
    (await replica.call()).finish()
    await until(lambda: not replica.engine.running)
    replica.clock.advance(hours=23)
    await replica.registry.join(replica.engine.replica_id)
    await (await replica.chat.send(replica.caller, replace(question, request_id="young"))).aclose()
    replica.clock.advance(hours=2)
    await tidy(replica)
    assert [request_id for _, request_id in replica.database.tables.requests] == ["young"]

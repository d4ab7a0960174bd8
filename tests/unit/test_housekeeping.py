"""What is done now and then: deleted conversations go, what has expired is forgotten, old logs are packed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from application import housekeeping
from domain.run import Question
from tests.unit.replica import Replica
from tests.unit.waiting import until


async def test_a_deleted_conversation_is_erased_with_all_that_hangs_on_it(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    run = replica.run(watcher.run_id)
    await replica.conversations.delete(replica.caller, run.conversation_id)
    await replica.housekeeping.tidy()
    tables = replica.database.tables
    assert [tables.conversations, tables.messages, tables.runs, tables.events] == [{}] * 4


async def test_a_deleted_conversation_is_kept_while_it_has_a_run(replica: Replica) -> None:
    conversation = await replica.conversation()
    watcher = await replica.ask(conversation)
    await watcher.next()
    replica.log.flowing.clear()
    await replica.conversations.delete(replica.caller, conversation.conversation_id)
    await replica.housekeeping.tidy()
    assert replica.database.tables.conversations
    replica.log.flowing.set()
    await replica.has_ended(watcher.run_id)
    await replica.housekeeping.tidy()
    assert not replica.database.tables.conversations


async def test_other_conversations_are_left_alone(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    await replica.housekeeping.tidy()
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
    await replica.housekeeping.tidy()
    assert [request_id for _, request_id in replica.database.tables.requests] == ["young"]


async def test_replicas_that_died_are_forgotten_after_a_day(replica: Replica) -> None:
    dead = await dies(replica)
    replica.clock.advance(hours=23)
    await replica.housekeeping.tidy()
    assert dead in replica.database.tables.replicas
    replica.clock.advance(hours=2)
    await replica.housekeeping.tidy()
    assert list(replica.database.tables.replicas) == [replica.engine.replica_id]


async def test_a_replica_that_owns_an_orphan_is_not_forgotten(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    dead = await dies(replica)
    replica.clock.advance(hours=25)
    await replica.housekeeping.tidy()
    assert replica.run(watcher.run_id).owner == dead
    assert dead in replica.database.tables.replicas


async def dies(replica: Replica) -> object:
    """Loses the lease, and returns the id that went with it."""
    lost = replica.engine.replica_id
    await replica.fenced()
    return lost


async def test_logs_are_packed_an_hour_after_the_end(replica: Replica) -> None:
    old = await replica.answered("Yes.")
    replica.clock.advance(minutes=30)
    await replica.registry.join(replica.engine.replica_id)
    young = await replica.answered("No.")
    replica.clock.advance(minutes=31)
    await replica.housekeeping.pack()
    assert list(replica.database.tables.packed) == [old.run_id]
    replica.clock.advance(minutes=30)
    await replica.housekeeping.pack()
    assert list(replica.database.tables.packed) == [old.run_id, young.run_id]


async def test_all_old_logs_are_packed_a_few_at_a_time(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "PACKED_AT_ONCE", 2)
    for _ in range(5):
        await replica.answered("Yes.")
    replica.clock.advance(seconds=housekeeping.UNPACKED / timedelta(seconds=1) + 1)
    await replica.housekeeping.pack()
    assert len(replica.database.tables.packed) == 5

"""The engine: a run goes on whoever watches, ends exactly once, and is shown as the log has it."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from application import run_engine, watching
from application.log_writer import UNWRITTEN_LIMIT
from domain.conversation import Message, MessageRole, MessageStatus, Usage
from domain.errors import (
    ChatBackError,
    DatabaseUnavailable,
    ModelKeyRefused,
    ModelRateLimited,
    ModelRefused,
    ModelStalled,
    ModelStreamBroken,
    ModelUnavailable,
    ModelUnknown,
    ReplicaDraining,
    ReplicaFenced,
    Unavailable,
)
from domain.prompt import Turn
from domain.run import Cancelled, Completed, Failed, FinishReason, Run, RunState
from tests.builders import a_conversation, a_message, a_run, a_start, an_answer
from tests.fakes.database import FakeDatabase
from tests.fakes.replica_registry import FakeReplicaRegistry
from tests.unit.replica import Replica, Watcher
from tests.unit.waiting import settled, until

MODEL_ERRORS: Sequence[ChatBackError] = (
    ModelKeyRefused(),
    ModelUnknown("small"),
    ModelRateLimited(),
    ModelUnavailable(),
    ModelStalled(20),
    ModelStreamBroken(),
    ModelRefused(418),
)


async def asked(replica: Replica) -> Watcher:
    """Returns the watcher of a run that has begun, after its first event."""
    watcher = await replica.ask()
    await watcher.next()
    return watcher


async def asked_and_heard(replica: Replica, *pieces: str) -> Watcher:
    """Returns the watcher of a run whose model has said something that is in the log."""
    watcher = await asked(replica)
    (await replica.call()).say(*pieces)
    await until(lambda: replica.logged(watcher.run_id)[1:])
    return watcher


def started(replica: Replica, parent: Message | None = None) -> Run:
    """Returns a run that is in the log, and whose making has not had its first step."""
    conversation = a_conversation(replica.caller)
    question = a_message(conversation, parent)
    answer = an_answer(conversation, question, model="small")
    run, tables = a_run(conversation, answer), replica.database.tables
    tables.runs[run.run_id] = run
    tables.owners[run.run_id] = replica.engine.replica_id, replica.clock.now()
    tables.messages.update({(run.workspace_id, message.message_id): message for message in (question, answer)})
    tables.events[run.run_id, 1] = a_start(run, question.message_id)
    replica.engine.start(run, replica.engine.replica_id, question, answer)
    return run


async def ended_with(watcher: Watcher, kind: type[Unavailable]) -> Unavailable:
    with pytest.raises(kind) as end:
        await watcher.all()
    return end.value


async def test_an_answer_is_made_to_its_end_though_nobody_watches(replica: Replica) -> None:
    watcher = await asked(replica)
    await watcher.leave()
    call = await replica.call()
    call.say("It ", "will.")
    call.finish(usage=Usage(7, 3))
    run = await replica.has_ended(watcher.run_id)
    message = replica.message(watcher.run_id)
    assert (run.state, run.usage) == (RunState.COMPLETED, Usage(7, 3))
    assert (message.content, message.status, message.usage) == ("It will.", MessageStatus.COMPLETE, Usage(7, 3))


async def test_a_watcher_sees_what_the_log_has(replica: Replica) -> None:
    watcher = await replica.answered("It ", "will.")
    assert watcher.seen == replica.logged(watcher.run_id)


async def test_seq_grows_by_one_from_one(replica: Replica) -> None:
    watcher = await asked(replica)
    call = await replica.call()
    for number in range(20):
        call.say(f"{number} ")
        await watcher.next()
    call.finish()
    await watcher.all()
    assert [event.seq for event in watcher.seen] == list(range(1, 23))


async def test_joined_deltas_are_the_completed_message(replica: Replica) -> None:
    watcher = await replica.answered("Caf", "\u00e9 ", "\U0001f327")
    last = watcher.seen[-1].body
    assert isinstance(last, Completed)
    assert watcher.text == last.message.content == replica.message(watcher.run_id).content == "Caf\u00e9 \U0001f327"


@pytest.mark.parametrize("reason", list(FinishReason))
async def test_the_model_s_word_is_passed_on(replica: Replica, reason: FinishReason) -> None:
    watcher = await asked(replica)
    (await replica.call()).finish(reason)
    last = (await watcher.all())[-1].body
    assert isinstance(last, Completed)
    assert last.finish_reason is reason


async def test_nothing_is_read_behind_the_model_s_last_word(replica: Replica) -> None:
    watcher = await asked(replica)
    call = await replica.call()
    call.finish()
    call.say("and another thing")
    await watcher.all()
    assert call.closed
    assert watcher.text == ""


async def test_the_model_is_shown_question_and_choices(replica: Replica) -> None:
    await replica.ask(content="Sure?", model="large", temperature=0.0, max_output_tokens=9)
    request = (await replica.call()).request
    assert request.turns == [Turn(MessageRole.USER, "Sure?")]
    assert (request.model, request.temperature, request.max_output_tokens) == ("large", 0.0, 9)


async def test_the_model_is_shown_the_branch_oldest_first(replica: Replica) -> None:
    conversation = await replica.conversation()
    first = await replica.ask(conversation, "One?")
    call = await replica.call()
    call.say("1")
    call.finish()
    await first.all()
    await replica.ask(conversation, "Two?")
    assert [turn.text for turn in (await replica.call(2)).request.turns] == ["One?", "1", "Two?"]


async def test_history_that_passes_the_model_s_window_is_cut(replica: Replica) -> None:
    conversation = await replica.conversation()
    for number in range(5):
        watcher = await replica.ask(conversation, f"{number}" * 900)
        (await replica.call(number + 1)).finish()
        await watcher.all()
    assert [turn.text[0] for turn in replica.model.calls[-1].request.turns] == ["3", "4"]


@pytest.mark.parametrize("error", MODEL_ERRORS, ids=lambda error: error.reason)
async def test_a_model_s_failure_is_an_event(replica: Replica, error: ChatBackError) -> None:
    watcher = await asked(replica)
    (await replica.call()).fail(error)
    assert (await watcher.all())[-1].body == Failed(error.reason, error.message)
    run, message = await replica.has_ended(watcher.run_id), replica.message(watcher.run_id)
    assert (run.state, message.status, message.content) == (RunState.FAILED, MessageStatus.FAILED, "")


@pytest.mark.parametrize("error", MODEL_ERRORS, ids=lambda error: error.reason)
async def test_a_failure_in_the_middle_keeps_the_text(replica: Replica, error: ChatBackError) -> None:
    watcher = await asked(replica)
    call = await replica.call()
    call.say("It wi")
    call.fail(error)
    assert (await watcher.all())[-1].body == Failed(error.reason, error.message)
    run, message = await replica.has_ended(watcher.run_id), replica.message(watcher.run_id)
    assert (run.state, message.status, message.content) == (RunState.FAILED, MessageStatus.INCOMPLETE, "It wi")


async def test_a_stream_that_ends_without_a_word_is_broken(replica: Replica) -> None:
    watcher = await asked(replica)
    call = await replica.call()
    call.say("It will.")
    call.hang_up()
    last = (await watcher.all())[-1].body
    assert isinstance(last, Failed)
    assert last.reason == "MODEL_STREAM_BROKEN"
    assert replica.message(watcher.run_id).status is MessageStatus.INCOMPLETE


async def test_a_defect_is_told_by_its_incident_alone(replica: Replica) -> None:
    watcher = await asked(replica)
    with capture_logs() as logs:
        (await replica.call()).fail(RuntimeError("password=hunter2"))
        last = (await watcher.all())[-1].body
    assert isinstance(last, Failed)
    incident = next(line["incident_id"] for line in logs if line["event"] == "run.broken")
    assert last == Failed("INTERNAL", f"internal error, incident {incident}")


async def test_what_no_database_takes_is_repaired(replica: Replica) -> None:
    watcher = await replica.answered("a\x00", "b\ud800", "c")
    assert watcher.text == replica.message(watcher.run_id).content == "a\ufffdb\ufffdc"


async def test_a_history_that_cannot_be_read_fails_the_run(replica: Replica) -> None:
    run = started(replica, parent=a_message(a_conversation(replica.caller)))
    replica.unit_of_work.unavailable = 1
    assert (await replica.has_ended(run.run_id)).failure == Failed(
        "DATABASE_UNAVAILABLE", "the database does not answer"
    )


async def test_the_model_is_not_read_while_too_much_is_unwritten(replica: Replica) -> None:
    watcher = await asked(replica)
    call = await replica.call()
    replica.log.flowing.clear()
    call.say("x" * UNWRITTEN_LIMIT, "y", "z", "!")
    call.finish()
    await settled()
    assert call.unread == 2
    replica.log.flowing.set()
    await watcher.all()
    assert replica.message(watcher.run_id).content == "x" * UNWRITTEN_LIMIT + "yz!"


async def test_a_cancelled_run_keeps_its_text(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    replica.engine.cancel(watcher.run_id)
    assert (await watcher.all())[-1].body == Cancelled()
    run, message = replica.run(watcher.run_id), replica.message(watcher.run_id)
    assert (run.state, message.status, message.content) == (RunState.CANCELLED, MessageStatus.CANCELLED, "It wi")


async def test_a_cancelled_run_s_model_is_closed(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    replica.engine.cancel(watcher.run_id)
    await replica.has_ended(watcher.run_id)
    assert (await replica.call()).closed


async def test_a_run_can_be_cancelled_before_its_first_step(replica: Replica) -> None:
    run = started(replica)
    replica.engine.cancel(run.run_id)
    assert (await replica.has_ended(run.run_id)).state is RunState.CANCELLED
    assert not replica.model.calls


async def test_a_run_can_be_cancelled_while_its_text_waits_for_the_log(replica: Replica) -> None:
    watcher = await asked(replica)
    replica.log.flowing.clear()
    (await replica.call()).say("x" * (UNWRITTEN_LIMIT + 1), "y")
    await settled()
    replica.engine.cancel(watcher.run_id)
    replica.log.flowing.set()
    assert (await watcher.all())[-1].body == Cancelled()
    assert set(replica.message(watcher.run_id).content) == {"x"}


async def test_a_run_that_is_being_finished_is_not_cancelled_any_more(replica: Replica) -> None:
    watcher = await asked(replica)
    replica.log.flowing.clear()
    (await replica.call()).finish()
    await settled()
    replica.engine.cancel(watcher.run_id)
    await settled()
    replica.log.flowing.set()
    assert isinstance((await watcher.all())[-1].body, Completed)


async def test_cancelling_twice_ends_a_run_once(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    replica.engine.cancel(watcher.run_id)
    await asyncio.sleep(0)
    replica.engine.cancel(watcher.run_id)
    assert [event.is_last for event in await watcher.all()].count(True) == 1


async def test_the_first_reason_to_stop_a_run_stands(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    call = await replica.call()
    call.may_close.clear()
    replica.engine.cancel(watcher.run_id)
    draining = asyncio.create_task(replica.engine.drain(0))
    await settled()
    call.may_close.set()
    await draining
    assert (await watcher.all())[-1].body == Cancelled()


async def test_cancelling_an_ended_run_changes_nothing(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    replica.engine.cancel(watcher.run_id)
    await settled()
    assert replica.run(watcher.run_id).state is RunState.COMPLETED


async def test_a_run_that_ended_is_not_counted_as_running(replica: Replica) -> None:
    watcher = await asked(replica)
    assert replica.engine.running == 1
    replica.engine.cancel(watcher.run_id)
    await watcher.all()
    await until(lambda: not replica.engine.running)


async def test_waiting_for_a_run_of_nobody_returns_at_once(replica: Replica) -> None:
    await replica.engine.wait_ended(UUID(int=0))


# A replica that loses its lease


async def test_a_fenced_replica_s_models_are_closed(replica: Replica) -> None:
    await asked_and_heard(replica, "It wi")
    await replica.registry.leave(replica.engine.replica_id)
    await replica.engine.renew_lease()
    await until(lambda: replica.model.calls[0].closed)
    await until(lambda: not replica.engine.running)


async def test_a_fenced_replica_s_watchers_end_with_their_cursor(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    await replica.registry.leave(replica.engine.replica_id)
    await replica.engine.renew_lease()
    error = await ended_with(watcher, ReplicaFenced)
    assert error.metadata == {"run_id": str(watcher.run_id), "last_seq": "2"}


async def test_a_fenced_replica_has_shown_nothing_that_the_log_has_not(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    await replica.registry.leave(replica.engine.replica_id)
    (await replica.call()).say("ll not be seen")
    await ended_with(watcher, ReplicaFenced)
    assert watcher.seen == replica.logged(watcher.run_id)
    assert watcher.text == "It wi"


async def test_an_end_that_meets_the_fence_ends_the_watchers(replica: Replica) -> None:
    watcher = await asked(replica)
    await replica.registry.leave(replica.engine.replica_id)
    (await replica.call()).finish()
    await ended_with(watcher, ReplicaFenced)
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_a_fenced_replica_goes_on_under_a_new_id(replica: Replica) -> None:
    old = replica.engine.replica_id
    await replica.registry.leave(old)
    await replica.engine.renew_lease()
    await until(lambda: replica.engine.replica_id != old)
    await replica.joined()
    assert (await replica.answered("Yes.")).text == "Yes."


async def test_a_run_that_was_fenced_before_its_first_step_is_forgotten(replica: Replica) -> None:
    await replica.registry.leave(replica.engine.replica_id)
    await replica.engine.renew_lease()
    started(replica)
    await until(lambda: not replica.engine.running)
    assert not replica.model.calls


async def test_a_lease_that_is_renewed_in_time_is_kept(replica: Replica) -> None:
    old = replica.engine.replica_id
    replica.clock.advance(seconds=9)
    await replica.engine.renew_lease()
    replica.clock.advance(seconds=9)
    await replica.engine.renew_lease()
    assert (await replica.answered("Yes.")).text == "Yes."
    assert replica.engine.replica_id == old


async def test_a_replica_that_has_not_joined_yet_has_no_lease_to_lose(database: FakeDatabase) -> None:
    replica = Replica(database)
    before = replica.engine.replica_id
    await replica.engine.renew_lease()
    async with replica.at_work():
        await settled()
        assert replica.engine.replica_id == before


class SlowRegistry(FakeReplicaRegistry):
    """Keeps whoever renews or adopts waiting for its answer until `answers` is set."""

    def __init__(self, database: FakeDatabase) -> None:
        super().__init__(database)
        self.answers = asyncio.Event()

    async def renew(self, replica_id: UUID) -> bool:
        renewed = await super().renew(replica_id)
        await self.answers.wait()
        return renewed


async def test_a_late_answer_about_the_old_lease_leaves_the_new_one_alone(database: FakeDatabase) -> None:
    registry = SlowRegistry(database)
    async with Replica(database, registry).at_work() as replica:
        old = replica.engine.replica_id
        await registry.leave(old)
        renewing = asyncio.create_task(replica.engine.renew_lease())
        await settled()
        watcher = await asked(replica)
        (await replica.call()).say("meets the fence")
        await ended_with(watcher, ReplicaFenced)
        new = await replica.joined()
        registry.answers.set()
        await renewing
        await settled()
        assert replica.engine.replica_id == new != old


async def test_a_run_begun_under_the_old_id_is_not_made_under_the_new_one(replica: Replica) -> None:
    conversation = await replica.conversation()
    old = replica.engine.replica_id
    async with replica.database.turn:
        asking = asyncio.create_task(replica.ask(conversation))
        await settled()
        await replica.registry.leave(old)
        await replica.engine.renew_lease()
        await until(lambda: replica.engine.replica_id != old)
        await replica.joined()
    watcher = await asking
    await settled()
    assert not replica.model.calls
    await replica.engine.adopt_orphans()
    await watcher.all()
    assert watcher.seen == replica.logged(watcher.run_id)
    assert watcher.seen[-1].body == Failed("REPLICA_LOST", "the server that wrote this answer stopped")


async def test_no_run_is_begun_before_the_database_knows_the_replica(
    database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(database)
    conversation = await replica.conversation()
    asking = asyncio.create_task(replica.ask(conversation))
    await settled()
    assert not database.tables.runs
    async with replica.at_work():
        await (await asking).next()
        assert [owner for owner, _ in database.tables.owners.values()] == [replica.engine.replica_id]


async def test_a_replica_that_cannot_join_takes_no_runs(
    database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_engine, "JOIN_SECONDS", 0)
    with pytest.raises(DatabaseUnavailable):
        await Replica(database).ask()


async def test_a_replica_joins_as_soon_as_the_database_answers(
    database: FakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_engine, "JOIN_RETRY_SECONDS", 0)
    replica = Replica(database)
    replica.registry.unavailable = 3
    async with replica.at_work():
        assert (await replica.answered("Yes.")).text == "Yes."


# Runs whose replica died


async def left_behind(database: FakeDatabase, *pieces: str) -> tuple[Replica, UUID]:
    """Returns a replica that died in the middle of a run, and the run."""
    dead = Replica(database)
    async with dead.at_work():
        watcher = await (asked_and_heard(dead, *pieces) if pieces else asked(dead))
    return dead, watcher.run_id


async def test_an_orphan_is_ended_with_the_text_of_the_log(database: FakeDatabase) -> None:
    _, run_id = await left_behind(database, "It wi")
    database.clock.advance(seconds=11)
    async with Replica(database).at_work() as heir:
        await heir.engine.adopt_orphans()
        run, message = heir.run(run_id), heir.message(run_id)
        assert run.failure == Failed("REPLICA_LOST", "the server that wrote this answer stopped")
        assert (message.content, message.status) == ("It wi", MessageStatus.INCOMPLETE)
        assert [event.seq for event in heir.logged(run_id)] == [1, 2, 3]


async def test_an_orphan_without_text_has_failed(database: FakeDatabase) -> None:
    _, run_id = await left_behind(database)
    database.clock.advance(seconds=11)
    async with Replica(database).at_work() as heir:
        await heir.engine.adopt_orphans()
        assert heir.message(run_id).status is MessageStatus.FAILED


async def test_an_orphan_that_was_to_be_cancelled_is_cancelled(database: FakeDatabase) -> None:
    dead, run_id = await left_behind(database, "It wi")
    await dead.chat.cancel(dead.caller, run_id)
    database.clock.advance(seconds=11)
    async with Replica(database).at_work() as heir:
        await heir.engine.adopt_orphans()
        assert heir.logged(run_id)[-1].body == Cancelled()
        assert heir.message(run_id).status is MessageStatus.CANCELLED


async def test_whoever_watches_an_orphan_sees_its_end(database: FakeDatabase) -> None:
    dead, run_id = await left_behind(database, "It wi")
    database.clock.advance(seconds=11)
    async with Replica(database).at_work() as heir:
        watcher = Watcher(await heir.chat.stream(dead.caller, run_id, 1))
        await watcher.next()
        await heir.engine.adopt_orphans()
        await watcher.all()
        assert watcher.seen == heir.logged(run_id)[1:]


async def test_a_run_of_a_living_replica_is_no_orphan(database: FakeDatabase, replica: Replica) -> None:
    watcher = await asked(replica)
    async with Replica(database).at_work() as other:
        await other.engine.adopt_orphans()
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_a_run_that_is_being_made_here_is_no_orphan(replica: Replica) -> None:
    watcher = await asked(replica)
    for _ in range(8):
        replica.clock.advance(seconds=9)
        await replica.engine.renew_lease()
    await replica.engine.adopt_orphans()
    assert replica.run(watcher.run_id).state is RunState.RUNNING


async def test_a_run_of_this_replica_that_nobody_makes_is_ended(database: FakeDatabase, replica: Replica) -> None:
    _, run_id = await left_behind(database, "It wi")
    database.tables.owners[run_id] = replica.engine.replica_id, database.clock.now()
    for _ in range(4):
        replica.clock.advance(seconds=9)
        await replica.engine.renew_lease()
    await replica.engine.adopt_orphans()
    assert replica.run(run_id).state is RunState.FAILED


async def test_orphans_are_taken_in_a_few_at_a_time(database: FakeDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_engine, "ADOPTION_LIMIT", 2)
    runs = [(await left_behind(database))[1] for _ in range(3)]
    database.clock.advance(seconds=11)
    async with Replica(database).at_work() as heir:
        await heir.engine.adopt_orphans()
        assert [heir.run(run_id).state for run_id in runs].count(RunState.FAILED) == 2
        await heir.engine.adopt_orphans()
        assert [heir.run(run_id).state for run_id in runs].count(RunState.FAILED) == 3


async def test_an_heir_that_is_fenced_itself_ends_nothing(database: FakeDatabase) -> None:
    _, run_id = await left_behind(database, "It wi")
    database.clock.advance(seconds=11)
    async with Replica(database).at_work() as heir:
        heir.log.flowing.clear()
        adopting = asyncio.create_task(heir.engine.adopt_orphans())
        await settled()
        await heir.registry.leave(heir.engine.replica_id)
        heir.log.flowing.set()
        with pytest.raises(ReplicaFenced):
            await adopting
    assert heir.run(run_id).state is RunState.RUNNING


# A replica that stops


async def test_a_draining_replica_takes_no_runs(replica: Replica) -> None:
    await replica.engine.drain(0)
    with pytest.raises(ReplicaDraining):
        await replica.ask()


async def test_a_drain_waits_for_the_runs(replica: Replica) -> None:
    watcher = await asked(replica)
    draining = asyncio.create_task(replica.engine.drain(60))
    await settled()
    assert not draining.done()
    call = await replica.call()
    call.say("Yes.")
    call.finish()
    await draining
    assert replica.run(watcher.run_id).state is RunState.COMPLETED


async def test_a_drain_ends_the_runs_that_take_too_long(replica: Replica) -> None:
    watcher = await asked_and_heard(replica, "It wi")
    await replica.engine.drain(0)
    assert replica.run(watcher.run_id).state is RunState.FAILED
    assert replica.message(watcher.run_id).content == "It wi"
    assert (await watcher.all())[-1].body == Failed("REPLICA_LOST", "the server that wrote this answer stopped")


async def test_a_drain_waits_for_a_run_that_is_just_being_begun(replica: Replica) -> None:
    conversation = await replica.conversation()
    async with replica.database.turn:
        asking = asyncio.create_task(replica.ask(conversation))
        await settled()
        draining = asyncio.create_task(replica.engine.drain(60))
        await settled()
        assert not draining.done()
    watcher = await asking
    (await replica.call()).finish()
    await draining
    assert isinstance((await watcher.all())[-1].body, Completed)


async def test_a_drain_of_an_idle_replica_ends_at_once(replica: Replica) -> None:
    await replica.engine.drain(3600)


async def test_watchers_of_runs_made_elsewhere_are_told_where_to_go_on(database: FakeDatabase) -> None:
    async with Replica(database).at_work() as maker, Replica(database).at_work() as other:
        made = await asked_and_heard(maker, "It wi")
        watcher = Watcher(await other.chat.stream(maker.caller, made.run_id, 0))
        await watcher.next()
        await watcher.next()
        await other.engine.drain(0)
        error = await ended_with(watcher, ReplicaDraining)
        assert error.metadata == {"run_id": str(made.run_id), "last_seq": "2"}


async def test_a_replica_that_left_is_fenced(replica: Replica) -> None:
    await replica.engine.leave()
    assert replica.database.tables.replicas[replica.engine.replica_id].fenced


# Watching


@pytest.fixture(params=[1, 2, 3, 500])
def _page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "READ_LIMIT", request.param)


@pytest.mark.usefixtures("_page")
async def test_a_watcher_may_come_at_any_moment_with_any_cursor(replica: Replica) -> None:
    made = await asked(replica)
    run_id, call = made.run_id, await replica.call()
    watchers: list[tuple[int, asyncio.Task[Sequence[object]]]] = []

    async def come() -> None:
        for cursor in range(len(replica.logged(run_id)) + 1):
            late = Watcher(await replica.chat.stream(replica.caller, run_id, cursor))
            watchers.append((cursor, asyncio.create_task(late.all())))

    await come()
    for number in range(6):
        call.say(f"{number} ")
        await come()
        await replica.has_logged(run_id, number + 2)
        await come()
    call.finish()
    await come()
    await made.all()
    await come()
    for cursor, events in watchers:
        assert await events == replica.logged(run_id)[cursor:]


async def test_what_is_both_in_the_log_and_handed_over_is_shown_once(replica: Replica) -> None:
    made = await asked(replica)
    late = Watcher(await replica.chat.stream(replica.caller, made.run_id, 0))
    call = await replica.call()
    for number in range(3):
        call.say(f"{number} ")
        await replica.has_logged(made.run_id, number + 2)
    watching = asyncio.create_task(late.all())
    await settled()
    call.finish()
    assert await watching == replica.logged(made.run_id)


async def test_a_watcher_that_is_slow_misses_nothing(replica: Replica) -> None:
    watcher = await asked(replica)
    call = await replica.call()
    for number in range(700):
        call.say(f"{number} ")
        await replica.has_logged(watcher.run_id, number + 2)
    call.finish()
    await replica.has_ended(watcher.run_id)
    await watcher.all()
    assert watcher.seen == replica.logged(watcher.run_id)
    assert len(watcher.seen) == 702


async def test_a_silent_database_ends_the_watcher_with_its_cursor(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await asked_and_heard(replica, "It wi")
    watcher = Watcher(await replica.chat.stream(replica.caller, made.run_id, 1))

    async def unavailable(*_: object) -> Sequence[object]:
        raise DatabaseUnavailable

    monkeypatch.setattr(replica.log, "read", unavailable)
    error = await ended_with(watcher, DatabaseUnavailable)
    assert error.metadata == {"run_id": str(made.run_id), "last_seq": "1"}

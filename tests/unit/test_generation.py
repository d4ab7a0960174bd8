"""Making one answer: what the model says is in the log, and however it goes the run ends exactly once."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from application import generation, log_writer
from domain.conversation import MessageRole, MessageStatus, Usage
from domain.errors import (
    ChatBackError,
    ModelKeyRefused,
    ModelRateLimited,
    ModelRefused,
    ModelStalled,
    ModelStreamBroken,
    ModelUnavailable,
    ModelUnknown,
)
from domain.prompt import Turn
from domain.run import Cancelled, Completed, Failed, FinishReason, RunState
from tests.builders import a_conversation, a_message
from tests.unit.replica import Replica
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


async def test_an_answer_is_made_to_its_end_though_nobody_watches(replica: Replica) -> None:
    watcher = await replica.asked()
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
    watcher = await replica.asked()
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
    watcher = await replica.asked()
    (await replica.call()).finish(reason)
    last = (await watcher.all())[-1].body
    assert isinstance(last, Completed)
    assert last.finish_reason is reason


async def test_nothing_is_read_behind_the_model_s_last_word(replica: Replica) -> None:
    watcher = await replica.asked()
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
    watcher = await replica.asked()
    (await replica.call()).fail(error)
    assert (await watcher.all())[-1].body == Failed(error.reason, error.message)
    run, message = await replica.has_ended(watcher.run_id), replica.message(watcher.run_id)
    assert (run.state, message.status, message.content) == (RunState.FAILED, MessageStatus.FAILED, "")


@pytest.mark.parametrize("error", MODEL_ERRORS, ids=lambda error: error.reason)
async def test_a_failure_in_the_middle_keeps_the_text(replica: Replica, error: ChatBackError) -> None:
    watcher = await replica.asked()
    call = await replica.call()
    call.say("It wi")
    call.fail(error)
    assert (await watcher.all())[-1].body == Failed(error.reason, error.message)
    run, message = await replica.has_ended(watcher.run_id), replica.message(watcher.run_id)
    assert (run.state, message.status, message.content) == (RunState.FAILED, MessageStatus.INCOMPLETE, "It wi")


async def test_a_stream_that_ends_without_a_word_is_broken(replica: Replica) -> None:
    watcher = await replica.asked()
    call = await replica.call()
    call.say("It will.")
    call.hang_up()
    last = (await watcher.all())[-1].body
    assert isinstance(last, Failed)
    assert last.reason == "MODEL_STREAM_BROKEN"
    assert replica.message(watcher.run_id).status is MessageStatus.INCOMPLETE


async def test_a_defect_is_told_by_its_incident_alone(replica: Replica) -> None:
    watcher = await replica.asked()
    with capture_logs() as logs:
        (await replica.call()).fail(RuntimeError("password=hunter2"))
        last = (await watcher.all())[-1].body
    assert isinstance(last, Failed)
    incident = next(line["incident_id"] for line in logs if line["event"] == "run.broken")
    assert last == Failed("INTERNAL", f"internal error, incident {incident}")


async def test_an_end_that_fails_by_a_defect_is_logged_and_leaves_the_run_to_be_taken_over(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> bool:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(replica.log, "finish", broken)
    watcher = await replica.asked()
    with capture_logs() as logs:
        (await replica.call()).finish()
        await until(lambda: not replica.engine.running)
    assert [(line["event"], line["run_id"]) for line in logs] == [("run.not_ended", str(watcher.run_id))]
    assert not replica.run(watcher.run_id).end_time


async def test_what_no_database_takes_is_repaired(replica: Replica) -> None:
    watcher = await replica.answered("a\x00", "b\ud800", "c")
    assert watcher.text == replica.message(watcher.run_id).content == "a\ufffdb\ufffdc"


async def test_a_history_is_read_as_soon_as_the_database_answers(replica: Replica) -> None:
    replica.started(parent=a_message(a_conversation(replica.caller)))
    replica.unit_of_work.unavailable = 3
    assert [turn.text for turn in (await replica.call()).request.turns] == ["Will it rain?"]
    assert not replica.unit_of_work.unavailable


async def test_a_history_that_cannot_be_read_is_given_up_with_the_lease(replica: Replica) -> None:
    run = replica.started(parent=a_message(a_conversation(replica.caller)))
    replica.unit_of_work.unavailable = 1_000_000
    await settled()
    assert replica.engine.makes(run.run_id)
    await replica.fenced()
    await until(lambda: not replica.engine.running)
    assert not replica.model.calls
    assert len(replica.logged(run.run_id)) == 1


async def test_a_run_can_be_cancelled_while_its_history_cannot_be_read(replica: Replica) -> None:
    run = replica.started(parent=a_message(a_conversation(replica.caller)))
    replica.unit_of_work.unavailable = 1_000_000
    await settled()
    replica.engine.cancel(run.run_id)
    assert (await replica.has_ended(run.run_id)).state is RunState.CANCELLED


async def test_a_model_that_is_configured_no_more_fails_the_run(replica: Replica) -> None:
    run = replica.started(model="gone")
    failure = (await replica.has_ended(run.run_id)).failure
    assert failure
    assert failure.reason == "MODEL_NOT_FOUND"


# An answer without end


@pytest.fixture
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "ANSWER_LIMIT", 10)


@pytest.mark.usefixtures("_short_answers")
async def test_an_answer_that_is_too_long_is_cut_and_ends_so(replica: Replica) -> None:
    watcher = await replica.asked()
    call = await replica.call()
    call.say("123456", "7890ab", "cdef")
    last = (await watcher.all())[-1].body
    assert isinstance(last, Completed)
    assert (last.finish_reason, last.message.content) == (FinishReason.LENGTH, "1234567890")
    assert last.message.status is MessageStatus.INCOMPLETE
    assert watcher.text == "1234567890"
    assert (call.closed, call.unread) == (True, 1)


@pytest.mark.usefixtures("_short_answers")
async def test_an_answer_that_has_reached_the_limit_ends_so(replica: Replica) -> None:
    watcher = await replica.asked()
    call = await replica.call()
    call.say("12345", "67890")
    last = (await watcher.all())[-1].body
    assert isinstance(last, Completed)
    assert (last.finish_reason, last.message.content, call.closed) == (FinishReason.LENGTH, "1234567890", True)


@pytest.mark.usefixtures("_short_answers")
async def test_an_answer_that_just_fits_is_whole(replica: Replica) -> None:
    watcher = await replica.answered("12345", "6789")
    assert replica.message(watcher.run_id).status is MessageStatus.COMPLETE


@pytest.fixture
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "UNWRITTEN_LIMIT", 100)


@pytest.mark.usefixtures("_little_room")
async def test_the_model_is_not_read_while_too_much_is_unwritten(replica: Replica) -> None:
    watcher = await replica.asked()
    call = await replica.call()
    replica.log.flowing.clear()
    call.say("x" * 100, "y", "z", "!")
    call.finish()
    await settled()
    assert call.unread == 2
    replica.log.flowing.set()
    await watcher.all()
    assert replica.message(watcher.run_id).content == "x" * 100 + "yz!"


# A run that is cancelled


async def test_a_cancelled_run_keeps_its_text(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.engine.cancel(watcher.run_id)
    assert (await watcher.all())[-1].body == Cancelled()
    run, message = replica.run(watcher.run_id), replica.message(watcher.run_id)
    assert (run.state, message.status, message.content) == (RunState.CANCELLED, MessageStatus.CANCELLED, "It wi")


async def test_a_cancelled_run_s_model_is_closed(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.engine.cancel(watcher.run_id)
    await replica.has_ended(watcher.run_id)
    assert (await replica.call()).closed


async def test_a_run_can_be_cancelled_before_its_first_step(replica: Replica) -> None:
    run = replica.started()
    replica.engine.cancel(run.run_id)
    assert (await replica.has_ended(run.run_id)).state is RunState.CANCELLED
    assert not replica.model.calls


@pytest.mark.usefixtures("_little_room")
async def test_a_run_can_be_cancelled_while_its_text_waits_for_the_log(replica: Replica) -> None:
    watcher = await replica.asked()
    replica.log.flowing.clear()
    (await replica.call()).say("x" * 101, "y")
    await settled()
    replica.engine.cancel(watcher.run_id)
    replica.log.flowing.set()
    assert (await watcher.all())[-1].body == Cancelled()
    assert set(replica.message(watcher.run_id).content) == {"x"}


async def test_a_run_that_is_being_finished_is_not_cancelled_any_more(replica: Replica) -> None:
    watcher = await replica.asked()
    replica.log.flowing.clear()
    (await replica.call()).finish()
    await settled()
    replica.engine.cancel(watcher.run_id)
    await settled()
    replica.log.flowing.set()
    assert isinstance((await watcher.all())[-1].body, Completed)


async def test_cancelling_twice_ends_a_run_once(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    replica.engine.cancel(watcher.run_id)
    await asyncio.sleep(0)
    replica.engine.cancel(watcher.run_id)
    assert [event.is_last for event in await watcher.all()].count(True) == 1


async def test_a_cancelled_run_that_is_handed_over_meanwhile_is_cancelled(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    call = await replica.call()
    call.may_close.clear()
    replica.engine.cancel(watcher.run_id)
    handing_over = asyncio.create_task(replica.engine.hand_over())
    await settled()
    call.may_close.set()
    await handing_over
    assert (await watcher.all())[-1].body == Cancelled()


@pytest.mark.usefixtures("_little_room")
async def test_a_run_that_waits_for_room_in_the_log_can_be_left(replica: Replica) -> None:
    watcher = await replica.asked()
    replica.log.flowing.clear()
    (await replica.call()).say("x" * 101, "y")
    await settled()
    handing_over = asyncio.create_task(replica.engine.hand_over())
    await until(lambda: not replica.engine.running)
    replica.log.flowing.set()
    await handing_over
    assert not replica.run(watcher.run_id).end_time


async def test_cancelling_twice_does_not_break_off_the_closing_of_the_model(replica: Replica) -> None:
    watcher = await replica.heard("It wi")
    call = await replica.call()
    call.may_close.clear()
    for _ in range(2):
        replica.engine.cancel(watcher.run_id)
        await settled()
    call.may_close.set()
    await watcher.all()
    assert call.closed


async def test_cancelling_an_ended_run_changes_nothing(replica: Replica) -> None:
    watcher = await replica.answered("Yes.")
    replica.engine.cancel(watcher.run_id)
    await settled()
    assert replica.run(watcher.run_id).state is RunState.COMPLETED


async def test_a_run_that_ended_is_not_counted_as_running(replica: Replica) -> None:
    watcher = await replica.asked()
    assert replica.engine.running == 1
    replica.engine.cancel(watcher.run_id)
    await watcher.all()
    await until(lambda: not replica.engine.running)

"""How a run ends, in its state, its message and its last events."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.conversation import Message, MessageStatus, Usage
from domain.errors import CursorAhead, InvalidField, ModelStalled
from domain.run import (
    Cancelled,
    Completed,
    Ending,
    Failed,
    FinishReason,
    Question,
    Run,
    RunState,
    SendOptions,
    end,
    failed,
    storable,
)
from tests.builders import NOW, a_conversation, a_message, a_run, an_answer, an_event, new_id

BROKEN = Failed("MODEL_STREAM_BROKEN", "it broke")
LATER = NOW + timedelta(seconds=9)
USAGE = Usage(12, 34)


def a_run_and_message(text: str = "", **changes: int) -> tuple[Run, Message]:
    conversation = a_conversation()
    answer = an_answer(conversation, a_message(conversation), content=text)
    return a_run(conversation, answer, **changes), answer


def ended(outcome: FinishReason | Failed | Cancelled, text: str = "") -> Ending:
    run, message = a_run_and_message(text)
    return end(run, message, outcome, usage=USAGE, tail=[], now=LATER)


@pytest.mark.parametrize(
    ("outcome", "text", "state", "status"),
    [
        (FinishReason.STOP, "yes", RunState.COMPLETED, MessageStatus.COMPLETE),
        (FinishReason.STOP, "", RunState.COMPLETED, MessageStatus.COMPLETE),
        (FinishReason.LENGTH, "ye", RunState.COMPLETED, MessageStatus.INCOMPLETE),
        (FinishReason.CONTENT_FILTER, "ye", RunState.COMPLETED, MessageStatus.INCOMPLETE),
        (BROKEN, "ye", RunState.FAILED, MessageStatus.INCOMPLETE),
        (BROKEN, "", RunState.FAILED, MessageStatus.FAILED),
        (Cancelled(), "ye", RunState.CANCELLED, MessageStatus.CANCELLED),
        (Cancelled(), "", RunState.CANCELLED, MessageStatus.CANCELLED),
    ],
)
def test_the_end_decides_state_and_status(
    outcome: FinishReason | Failed | Cancelled, text: str, state: RunState, status: MessageStatus
) -> None:
    ending = ended(outcome, text)
    assert (ending.run.state, ending.message.status, ending.message.content) == (state, status, text)


@pytest.mark.parametrize("outcome", [FinishReason.STOP, BROKEN, Cancelled()])
def test_the_last_event_and_only_it_is_last(outcome: FinishReason | Failed | Cancelled) -> None:
    run, message = a_run_and_message("yes", last_seq=4)
    events = end(run, message, outcome, usage=USAGE, tail=[an_event(run, 5, "yes")], now=LATER).events
    assert [(event.seq, event.is_last) for event in events] == [(5, False), (6, True)]


def test_without_a_tail_the_last_event_follows_the_log() -> None:
    run, message = a_run_and_message("yes", last_seq=4)
    ending = end(run, message, FinishReason.STOP, usage=USAGE, tail=[], now=LATER)
    assert [event.seq for event in ending.events] == [ending.run.last_seq] == [5]


def test_completed_holds_the_final_message_and_its_usage() -> None:
    ending = ended(FinishReason.LENGTH, "ye")
    assert ending.events[-1].body == Completed(ending.message, FinishReason.LENGTH)
    assert ending.message.usage == ending.run.usage == USAGE


def test_a_failed_run_keeps_its_failure() -> None:
    assert ended(BROKEN).run.failure == BROKEN


def test_a_run_that_did_not_fail_has_no_failure() -> None:
    assert ended(Cancelled()).run.failure is None


def test_the_end_has_a_time() -> None:
    assert ended(Cancelled()).run.end_time == LATER


def test_the_last_event_belongs_to_the_run_s_attempt() -> None:
    run, message = a_run_and_message(attempt=3)
    assert end(run, message, Cancelled(), usage=USAGE, tail=[], now=LATER).events[-1].attempt == 3


def test_a_cursor_at_the_newest_event_is_let_through() -> None:
    a_run_and_message(last_seq=4)[0].check_cursor(4)


def test_a_cursor_past_the_newest_event_is_told_its_seq() -> None:
    with pytest.raises(CursorAhead) as refusal:
        a_run_and_message(last_seq=4)[0].check_cursor(5)
    assert refusal.value.metadata == {"last_seq": "4"}


def test_an_error_becomes_a_failure_with_its_reason() -> None:
    assert failed(ModelStalled(20)) == Failed("MODEL_STALLED", "the model sent nothing for 20 seconds")


def test_text_that_no_database_takes_is_repaired() -> None:
    assert storable("a\x00b\ud800c") == "a\ufffdb\ufffdc"


@given(st.text(st.characters(codec=None, categories=None)))
def test_a_repaired_text_can_be_stored_and_keeps_its_length(text: str) -> None:
    repaired = storable(text)
    assert "\x00" not in repaired.encode().decode()
    assert len(repaired) == len(text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00")))
def test_a_sound_text_is_left_as_it_is(text: str) -> None:
    assert storable(text) == text


@pytest.mark.parametrize("content", ["", "x" * 200_001, "\x00"])
def test_a_question_s_content_is_bounded(content: str) -> None:
    with pytest.raises(InvalidField, match="content"):
        Question(new_id(), content)


def test_the_longest_question_is_let_through() -> None:
    Question(new_id(), "x" * 200_000, request_id="r" * 255)


@pytest.mark.parametrize("request_id", ["x" * 256, "a b"])
def test_a_question_s_request_id_is_bounded(request_id: str) -> None:
    with pytest.raises(InvalidField, match="request_id"):
        Question(new_id(), "Why?", request_id=request_id)


@pytest.mark.parametrize("temperature", [-0.01, 2.01, float("nan")])
def test_temperature_is_bounded(temperature: float) -> None:
    with pytest.raises(InvalidField, match=r"options\.temperature"):
        SendOptions(temperature=temperature)


@pytest.mark.parametrize("tokens", [0, -1, 1_000_001])
def test_max_output_tokens_is_bounded(tokens: int) -> None:
    with pytest.raises(InvalidField, match=r"options\.max_output_tokens"):
        SendOptions(max_output_tokens=tokens)


def test_a_model_s_name_is_bounded() -> None:
    with pytest.raises(InvalidField, match=r"options\.model"):
        SendOptions(model="m" * 201)


def test_zero_is_a_temperature() -> None:
    assert SendOptions(temperature=0.0, max_output_tokens=1).temperature == 0.0

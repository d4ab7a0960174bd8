"""How the client follows an answer, whatever happens to its streams."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from chatback.client import AnswerError, ApiKey, ChatBackError, pauses
from chatback.v1.chat_service_pb2 import (
    RegenerateMessageRequest,
    SendMessageRequest,
    SendOptions,
    StreamRunRequest,
)
from chatback.v1.conversation_pb2 import Message
from chatback.v1.run_pb2 import (
    AttemptReset,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailure,
    RunStarted,
    TextDelta,
)
from tests.unit.client_service import LOST, REFUSED, Scripted, client_of, event, refreshed, status, tokens

STARTED = event(1, started=RunStarted(model="m"))
HELLO = event(2, text_delta=TextDelta(text="Hello"))
RESET = event(3, attempt_reset=AttemptReset(reason="REPLICA_LOST"))
COMPLETED = event(3, completed=RunCompleted(message=Message(content="Hello")))
FAILED = event(3, failed=RunFailure(reason="MODEL_STALLED", message="the model stalled"))
GONE = status(grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")
FULL = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAMS_TOO_MANY", retry=0.001)


@pytest.fixture(autouse=True)
def no_time_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for less between attempts."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)


@dataclass(slots=True)
class Seen:
    """What a watcher saw, and what the service saw of the watcher."""

    events: list[RunEvent]
    breaks: list[ChatBackError]
    service: Scripted

    @property
    def calls(self) -> list[Any]:
        """The requests, as messages; the question without its request_id."""
        return [_request(call.method, call.request) for call in self.service.calls]


ASKED = SendMessageRequest(conversation_id="c", content="Hi")


def resumed(after_seq: int) -> StreamRunRequest:
    return StreamRunRequest(run_id="run", after_seq=after_seq)


async def asked(first: list[Any], *later: list[Any], patience_seconds: float = 60) -> Seen:
    """Asks, and watches the answer to its end; what comes after the first stream is scripted in order."""
    seen = Seen([], [], Scripted(SendMessage=[first], StreamRun=list(later)))
    async with client_of(seen.service, credentials=ApiKey("k"), patience_seconds=patience_seconds) as chat:
        answer = chat.send("c", "Hi")
        answer.on_break = seen.breaks.append
        seen.events.extend([event async for event in answer])
    return seen


async def test_a_stream_that_breaks_is_resumed_behind_its_newest_event() -> None:
    seen = await asked([STARTED, HELLO, LOST], [COMPLETED])
    assert seen.events == [STARTED, HELLO, COMPLETED]
    assert seen.calls == [ASKED, resumed(2)]


async def test_a_question_is_repeated_with_its_request_id_until_its_run_is_known() -> None:
    service = Scripted(SendMessage=[[LOST], [LOST], [STARTED, COMPLETED]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        assert [event async for event in chat.send("c", "Hi")] == [STARTED, COMPLETED]
    assert len({call.request for call in service.calls}) == 1
    assert SendMessageRequest.FromString(service.calls[0].request).request_id


async def test_a_request_id_of_the_callers_own_is_sent() -> None:
    service = Scripted(SendMessage=[[STARTED, COMPLETED]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        await chat.ask("c", "Hi", request_id="mine")
    assert SendMessageRequest.FromString(service.calls[0].request).request_id == "mine"


async def test_a_break_is_told_once_however_long_it_takes() -> None:
    seen = await asked([STARTED, LOST], [LOST], [LOST], [COMPLETED])
    assert [error.code for error in seen.breaks] == [grpc.StatusCode.UNAVAILABLE]


async def test_a_stream_that_ends_well_before_the_last_event_is_resumed_too() -> None:
    assert (await asked([STARTED], [HELLO, COMPLETED])).events == [STARTED, HELLO, COMPLETED]


@pytest.mark.parametrize("code", ["CANCELLED", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED"])
async def test_a_stream_that_the_network_ends_is_resumed(code: str) -> None:
    seen = await asked([STARTED, status(grpc.StatusCode[code])], [COMPLETED])
    assert seen.events == [STARTED, COMPLETED]


async def test_a_mistake_of_the_service_is_not_taken_for_one_of_the_network() -> None:
    with pytest.raises(ChatBackError) as caught:
        await asked([STARTED, status(grpc.StatusCode.INTERNAL, "INTERNAL", incident_id="i")])
    assert caught.value.metadata == {"incident_id": "i"}


async def test_where_too_many_streams_are_open_another_try_is_made_later() -> None:
    seen = await asked([STARTED, FULL], [COMPLETED])
    assert seen.events == [STARTED, COMPLETED]
    assert seen.breaks == []


async def test_nothing_is_asked_for_after_the_last_event() -> None:
    assert (await asked([STARTED, COMPLETED, asyncio.Event()])).calls == [ASKED]


async def test_a_refusal_is_not_repeated() -> None:
    with pytest.raises(ChatBackError) as caught:
        await asked([GONE])
    assert caught.value.reason == "CONVERSATION_NOT_FOUND"


async def test_patience_ends() -> None:
    with pytest.raises(ChatBackError) as caught:
        await asked([STARTED, LOST], [LOST], patience_seconds=0.05)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_token_that_is_refused_is_renewed() -> None:
    service = Scripted(SendMessage=[[REFUSED], [STARTED, COMPLETED]], RefreshTokens=[refreshed("new")])
    async with client_of(service, credentials=tokens(3600, "old")) as chat:
        assert [event async for event in chat.send("c", "Hi")] == [STARTED, COMPLETED]
    assert [call.token for call in service.called("SendMessage")] == ["old", "new"]


async def test_a_token_that_is_refused_again_ends_the_watch() -> None:
    with pytest.raises(ChatBackError) as caught:
        await asked([REFUSED])
    assert caught.value.reason == "TOKEN_INVALID"


async def test_a_new_attempt_voids_the_text_and_is_handed_over() -> None:
    again = event(4, text_delta=TextDelta(text="Again"))
    service = Scripted(StreamRun=[[STARTED, HELLO, RESET, again, COMPLETED]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        answer = chat.watch("run")
        texts = [(event, answer.text) async for event in answer]
    assert [text for _, text in texts] == ["", "Hello", "", "Again", "Again"]
    assert texts[2][0] == RESET


async def test_an_answer_knows_how_far_it_has_come() -> None:
    async with client_of(Scripted(SendMessage=[[STARTED, HELLO, COMPLETED]]), credentials=ApiKey("k")) as chat:
        answer = chat.send("c", "Hi")
        assert [(answer.run_id, answer.seq) async for _ in answer] == [("run", 1), ("run", 2), ("run", 3)]


async def test_a_run_of_which_nothing_is_left_has_no_events() -> None:
    async with client_of(Scripted(StreamRun=[[LOST], []]), credentials=ApiKey("k")) as chat:
        assert [event async for event in chat.watch("run", after_seq=3)] == []


async def test_leaving_closes_the_stream() -> None:
    service = Scripted(SendMessage=[[STARTED, asyncio.Event()]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        async with chat.send("c", "Hi") as answer:
            assert await anext(answer) == STARTED
        await asyncio.wait_for(service.left.wait(), 5)


async def test_ask_returns_the_message() -> None:
    async with client_of(Scripted(SendMessage=[[STARTED, HELLO, COMPLETED]]), credentials=ApiKey("k")) as chat:
        assert (await chat.ask("c", "Hi")).content == "Hello"


@pytest.mark.parametrize("last", [FAILED, event(3, cancelled=RunCancelled())])
async def test_ask_raises_what_an_answer_that_did_not_complete_left(last: RunEvent) -> None:
    async with client_of(Scripted(SendMessage=[[STARTED, HELLO, last]]), credentials=ApiKey("k")) as chat:
        with pytest.raises(AnswerError) as caught:
            await chat.ask("c", "Hi")
    assert (caught.value.event, caught.value.text) == (last, "Hello")


async def test_an_answer_is_made_anew_and_resumed_like_any_other() -> None:
    service = Scripted(RegenerateMessage=[[LOST], [STARTED, HELLO, LOST]], StreamRun=[[COMPLETED]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        events = [event async for event in chat.regenerate("m", options=SendOptions(model="large"))]
    assert events == [STARTED, HELLO, COMPLETED]
    first, again, resumption = service.calls
    assert first.request == again.request
    wish = RegenerateMessageRequest.FromString(first.request)
    assert (wish.message_id, wish.options.model) == ("m", "large")
    assert wish.request_id
    assert StreamRunRequest.FromString(resumption.request) == resumed(2)


async def test_a_wish_for_another_answer_has_the_request_id_of_its_caller() -> None:
    service = Scripted(RegenerateMessage=[[STARTED, COMPLETED]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        assert (await chat.regenerate("m", request_id="mine").message()).content == "Hello"
    assert RegenerateMessageRequest.FromString(service.calls[0].request).request_id == "mine"


async def test_a_question_can_be_asked_in_other_words() -> None:
    service = Scripted(SendMessage=[[STARTED, COMPLETED]])
    async with client_of(service, credentials=ApiKey("k")) as chat:
        await chat.ask("c", "Hi", edited_message_id="m")
    assert SendMessageRequest.FromString(service.calls[0].request).edited_message_id == "m"


async def test_the_message_is_also_that_of_an_answer_half_watched() -> None:
    async with client_of(Scripted(StreamRun=[[STARTED, HELLO, COMPLETED]]), credentials=ApiKey("k")) as chat:
        answer = chat.watch("run")
        await anext(answer)
        assert (await answer.message()).content == "Hello"
        assert (await answer.message()).content == "Hello"


def _request(method: str, data: bytes) -> SendMessageRequest | StreamRunRequest:
    if method == "StreamRun":
        return StreamRunRequest.FromString(data)
    question = SendMessageRequest.FromString(data)
    question.ClearField("request_id")
    return question

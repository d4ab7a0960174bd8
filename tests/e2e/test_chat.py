"""Answers of the running service, from the question to the stored message, with a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from chatback.v1 import chat_service_pb2 as pb
from chatback.v1 import conversation_pb2, run_pb2
from tests.e2e.caller import Person, events_of, failure, text_of, until_text
from tests.fakes.openai_endpoint import (
    End,
    OpenAIEndpoint,
    Script,
    answer,
    closed_without_response,
    event,
    refusal,
    unfinished,
)

SECRET = "a word of the endpoint that is not for callers"


def bytes_of(events: Sequence[run_pb2.RunEvent]) -> list[bytes]:
    return [event.SerializeToString(deterministic=True) for event in events]


def prompt_of(endpoint: OpenAIEndpoint, number: int = -1) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in endpoint.requests[number].body["messages"]]


@pytest.fixture
async def conversation(me: Person) -> str:
    """The id of an empty conversation."""
    return (await me.converse()).conversation_id


async def test_an_answer_begins_with_started_and_grows_without_gaps_to_its_end(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    pieces = [f" {number}" for number in range(300)]
    endpoint.script(answer(*pieces, delay=0.001))
    events = await me.ask(conversation)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    cases = [event.WhichOneof("event") for event in events]
    assert (cases[0], cases[-1]) == ("started", "completed")
    assert set(cases[1:-1]) == {"text_delta"}
    assert {(event.run_id, event.attempt) for event in events} == {(events[0].run_id, 1)}
    assert text_of(events) == "".join(pieces)


async def test_pieces_completed_message_and_stored_message_are_one_text(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    endpoint.script(answer("Grüße ", "𝄞", "\r\n\u2028", " \u00a0e\u0301 "))
    events = await me.ask(conversation, "Hello")
    question, stored = await me.messages(conversation)
    completed = events[-1].completed
    assert text_of(events) == completed.message.content == stored.content == "Grüße 𝄞\r\n\u2028 \u00a0e\u0301 "
    assert completed.message == stored
    assert (completed.usage.input_tokens, completed.usage.output_tokens) == (3, 2)
    started = events[0].started
    assert (started.user_message_id, started.message_id) == (question.message_id, stored.message_id)
    assert (started.conversation_id, started.model, stored.model) == (conversation, "model-1", "model-1")
    assert (question.role, stored.role) == (
        conversation_pb2.MESSAGE_ROLE_USER,
        conversation_pb2.MESSAGE_ROLE_ASSISTANT,
    )
    assert (question.content, question.status) == ("Hello", conversation_pb2.MESSAGE_STATUS_COMPLETE)


async def test_the_run_tells_what_the_stream_told(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    events = await me.ask(conversation)
    run = await me.run(events[0].run_id)
    assert (run.state, run.last_seq, run.attempt) == (run_pb2.RUN_STATE_COMPLETED, len(events), 1)
    assert (run.message_id, run.conversation_id) == (events[0].started.message_id, conversation)
    assert run.usage == events[-1].completed.usage
    assert run.end_time == events[-1].create_time
    assert not run.HasField("error")


async def test_the_model_is_shown_the_turns_before(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    endpoint.script(answer("Hi."), answer("Yes."))
    await me.ask(conversation, "Hello")
    await me.ask(conversation, "Will it rain?")
    assert prompt_of(endpoint) == [("user", "Hello"), ("assistant", "Hi."), ("user", "Will it rain?")]


async def test_the_oldest_turns_are_left_out_where_the_window_is_full(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    questions = [f"{number}" + " word" * 280 for number in range(6)]
    for question in questions:
        await me.ask(conversation, question)
    shown = [content for role, content in prompt_of(endpoint) if role == "user"]
    assert shown == questions[-len(shown) :]
    assert 1 < len(shown) < len(questions)


async def test_a_message_longer_than_the_window_is_refused_and_not_kept(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    refused = await failure(me.send(conversation, "word " * 2000))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LONG")
    assert refused.metadata == {"limit": "1536"}
    assert refused.fields == ["content"]
    assert not await me.messages(conversation)
    assert not endpoint.requests


async def test_options_reach_the_model(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    await me.ask(conversation, options=pb.SendOptions(model="model-2", temperature=0.0, max_output_tokens=7))
    body = endpoint.requests[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("model-2", 0.0, 7)
    await me.ask(conversation)
    assert "temperature" not in endpoint.requests[1].body


async def test_an_unknown_model_is_refused_with_the_known_ones(me: Person, conversation: str) -> None:
    refused = await failure(me.send(conversation, options=pb.SendOptions(model="model-3")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert refused.metadata == {"models": "model-1, model-2"}


async def test_twenty_equal_requests_at_once_are_one(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    endpoint.script(answer("Hello", " world", delay=0.05))
    streams = await asyncio.gather(*(me.ask(conversation, request_id="once") for _ in range(20)))
    assert len({tuple(bytes_of(events)) for events in streams}) == 1
    assert len(endpoint.requests) == 1
    assert len(await me.messages(conversation)) == 2


async def test_a_request_repeated_after_the_end_shows_the_same_answer(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    first = await me.ask(conversation, request_id="once")
    await me.ask(conversation, "Something else")
    assert bytes_of(await me.ask(conversation, request_id="once")) == bytes_of(first)
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    "change",
    [{"content": "Other"}, {"options": pb.SendOptions(temperature=0.0)}, {"options": pb.SendOptions(max_passages=0)}],
)
async def test_a_request_id_with_another_request_is_refused(
    me: Person, endpoint: OpenAIEndpoint, conversation: str, change: dict[str, Any]
) -> None:
    await me.ask(conversation, request_id="once")
    refused = await failure(me.send(conversation, request_id="once", **change))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_refused_request_leaves_its_request_id_free(me: Person, endpoint: OpenAIEndpoint) -> None:
    missing = "01a20000-0000-7000-8000-000000000000"
    assert (await failure(me.send(missing, request_id="again"))).reason == "CONVERSATION_NOT_FOUND"
    made = await me.converse()
    assert (await me.ask(made.conversation_id, request_id="again"))[-1].completed.message.content == "Hello world"


async def test_an_answer_being_made_cannot_be_answered(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    call = me.send(conversation)
    run_id = (await until_text(call))[0].run_id
    refused = await failure(me.send(conversation))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_IN_PROGRESS")
    assert refused.metadata == {"run_id": run_id}
    streaming = (await me.messages(conversation))[-1]
    assert (streaming.status, streaming.content) == (conversation_pb2.MESSAGE_STATUS_STREAMING, "")
    gate.set()
    assert (await events_of(call))[-1].completed.message.content == "Hello world"
    assert len(await me.messages(conversation)) == 2


async def test_another_branch_goes_on_while_an_answer_is_made(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    first = (await me.ask(conversation, "Q1"))[0].started.message_id
    gate = asyncio.Event()
    endpoint.script(answer("Slow", gate), answer("Quick"))
    slow = me.send(conversation, "Q2")
    await until_text(slow)
    quick = await me.ask(conversation, "Q3", parent_message_id=first)
    assert quick[-1].completed.message.content == "Quick"
    assert [content for _, content in prompt_of(endpoint)] == ["Q1", "Hello world", "Q3"]
    gate.set()
    assert (await events_of(slow))[-1].completed.message.content == "Slow"


async def test_every_cursor_shows_the_same_bytes_while_the_answer_is_made(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    pieces = [part for number, gate in enumerate(gates) for part in (f"piece {number} ", gate)]
    endpoint.script(answer(*pieces))
    call = me.send(conversation)
    seen = await until_text(call)
    watchers = [asyncio.create_task(me.watch(seen[0].run_id, cursor)) for cursor in range(len(seen) + 1)]
    for gate in gates:
        gate.set()
        watchers.append(asyncio.create_task(me.watch(seen[0].run_id)))
        await asyncio.sleep(0.01)  # so that the pieces come one by one
    whole = bytes_of(seen + await events_of(call))
    for cursor, watched in enumerate(await asyncio.gather(*watchers[: len(seen) + 1])):
        assert bytes_of(watched) == whole[cursor:]
    for watched in await asyncio.gather(*watchers[len(seen) + 1 :]):
        assert bytes_of(watched) == whole


async def test_every_cursor_shows_the_same_bytes_after_the_end(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    endpoint.script(answer(*"abcdefgh", delay=0.005))
    live = await me.ask(conversation)
    for cursor in range(len(live) + 1):
        assert bytes_of(await me.watch(live[0].run_id, cursor)) == bytes_of(live)[cursor:]


async def test_a_cursor_past_the_newest_event_is_out_of_range(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    events = await me.ask(conversation)
    for ahead in (len(events) + 1, 2**31 - 1):
        refused = await failure(me.chat.StreamRun(pb.StreamRunRequest(run_id=events[0].run_id, after_seq=ahead)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_AHEAD")
        assert refused.metadata == {"last_seq": str(len(events))}


async def test_a_negative_cursor_is_refused(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    run_id = (await me.ask(conversation))[0].run_id
    refused = await failure(me.chat.StreamRun(pb.StreamRunRequest(run_id=run_id, after_seq=-1)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["after_seq"])


async def test_a_client_that_leaves_does_not_stop_the_answer(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    call = me.send(conversation)
    run_id = (await until_text(call))[0].run_id
    call.cancel()
    gate.set()
    assert (await me.watch(run_id))[-1].completed.message.content == "Hello world"


async def test_a_client_that_asked_for_it_stops_the_answer_by_leaving(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    call = me.send(conversation, options=pb.SendOptions(cancel_on_disconnect=True))
    run_id = (await until_text(call))[0].run_id
    call.cancel()
    await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 1)
    assert [event.WhichOneof("event") for event in await me.watch(run_id, 2)] == ["cancelled"]
    assert (await me.messages(conversation))[-1].content == "Hello"


async def test_a_client_that_leaves_before_the_first_event_stops_the_answer_too(
    me: Person, endpoint: OpenAIEndpoint
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    made = [await me.converse() for _ in range(12)]
    calls = [
        me.send(one.conversation_id, request_id=f"{number}", options=pb.SendOptions(cancel_on_disconnect=True))
        for number, one in enumerate(made)
    ]
    for number, call in enumerate(calls):
        await asyncio.sleep(0.001 * number)  # leaves at every stage of the call
        call.cancel()
    for request in list(endpoint.requests):
        await asyncio.wait_for(request.disconnected.wait(), 1)


async def test_leaving_binds_the_call_that_made_the_run_alone(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    fields: dict[str, Any] = {"request_id": "once", "options": pb.SendOptions(cancel_on_disconnect=True)}
    maker, attached = me.send(conversation, **fields), None
    await until_text(maker)
    attached = me.send(conversation, **fields)
    await until_text(attached)
    attached.cancel()
    assert await attached.code() is grpc.StatusCode.CANCELLED
    gate.set()
    assert (await events_of(maker))[-1].completed.message.content == "Hello world"


async def test_a_cancelled_answer_keeps_its_text_and_closes_the_models_stream(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    endpoint.script(answer("Hel", "lo", asyncio.Event()))
    call = me.send(conversation)
    seen = await until_text(call)
    run = await me.cancel(seen[0].run_id)
    await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 1)
    seen += await events_of(call)
    assert seen[-1].WhichOneof("event") == "cancelled"
    stored = (await me.messages(conversation))[-1]
    assert stored.status == conversation_pb2.MESSAGE_STATUS_CANCELLED
    assert stored.content == text_of(seen) != ""
    assert run.state == run_pb2.RUN_STATE_CANCELLED
    assert await me.cancel(run.run_id) == run == await me.run(run.run_id)


async def test_cancelling_an_ended_answer_changes_nothing(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    events = await me.ask(conversation)
    before = await me.run(events[0].run_id)
    assert await me.cancel(events[0].run_id) == before
    assert bytes_of(await me.watch(events[0].run_id)) == bytes_of(events)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answer("Hello"), ("completed", "STOP", "COMPLETED", "COMPLETE", "Hello")),
        (answer("Hello", finish="tool_calls"), ("completed", "STOP", "COMPLETED", "COMPLETE", "Hello")),
        (answer(), ("completed", "STOP", "COMPLETED", "COMPLETE", "")),
        (answer("Hel", finish="length"), ("completed", "LENGTH", "COMPLETED", "INCOMPLETE", "Hel")),
        (answer("Hel", finish="content_filter"), ("completed", "CONTENT_FILTER", "COMPLETED", "INCOMPLETE", "Hel")),
        (unfinished("Hel", end=End.WHOLE), ("failed", "MODEL_STREAM_BROKEN", "FAILED", "INCOMPLETE", "Hel")),
        (unfinished("Hel", end=End.CUT), ("failed", "MODEL_STREAM_BROKEN", "FAILED", "INCOMPLETE", "Hel")),
        (unfinished("Hel", end=End.RESET, delay=0.1), ("failed", "MODEL_STREAM_BROKEN", "FAILED", "INCOMPLETE", "Hel")),
        (unfinished("Hel", end=End.SILENT), ("failed", "MODEL_STALLED", "FAILED", "INCOMPLETE", "Hel")),
        (unfinished(end=End.SILENT), ("failed", "MODEL_STALLED", "FAILED", "FAILED", "")),
        (refusal(401, message=SECRET), ("failed", "MODEL_KEY_REFUSED", "FAILED", "FAILED", "")),
        (refusal(404, message=SECRET), ("failed", "MODEL_UNKNOWN", "FAILED", "FAILED", "")),
        (refusal(429, message=SECRET, retry_after="0"), ("failed", "MODEL_RATE_LIMITED", "FAILED", "FAILED", "")),
        (refusal(400, message=SECRET), ("failed", "MODEL_REFUSED", "FAILED", "FAILED", "")),
        (refusal(500, message=SECRET, retry_after="0"), ("failed", "MODEL_UNAVAILABLE", "FAILED", "FAILED", "")),
        (closed_without_response(), ("failed", "MODEL_UNAVAILABLE", "FAILED", "FAILED", "")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_how_an_answer_ended(  # the table of that name in the API's contract
    me: Person, endpoint: OpenAIEndpoint, conversation: str, script: Script, expected: tuple[str, ...]
) -> None:
    endpoint.script(script)
    events = await me.ask(conversation)
    last, stored, run = events[-1], (await me.messages(conversation))[-1], await me.run(events[0].run_id)
    assert expected == (
        last.WhichOneof("event"),
        last.failed.reason or run_pb2.FinishReason.Name(last.completed.finish_reason).removeprefix("FINISH_REASON_"),
        run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_"),
        conversation_pb2.MessageStatus.Name(stored.status).removeprefix("MESSAGE_STATUS_"),
        stored.content,
    )
    assert text_of(events) == stored.content
    assert run.error == last.failed
    assert SECRET not in str(events)
    assert bytes_of(await me.watch(run.run_id)) == bytes_of(events)


async def test_a_conversation_goes_on_after_an_answer_that_failed(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    endpoint.script(refusal(401), answer("Better"))
    await me.ask(conversation, "One")
    assert (await me.ask(conversation, "Two"))[-1].completed.message.content == "Better"
    assert prompt_of(endpoint) == [("user", "One"), ("user", "Two")]


async def test_what_a_model_sends_that_no_text_may_hold_is_replaced(
    me: Person, endpoint: OpenAIEndpoint, conversation: str
) -> None:
    lone = event("X").replace(b"X", b"\\ud800 \\u0000 ok")
    endpoint.script(Script([event("a\0b "), lone, event(finish="stop")]))
    events = await me.ask(conversation)
    assert events[-1].completed.message.content == text_of(events) == "a\ufffdb \ufffd \ufffd ok"


async def test_a_long_answer_is_kept_whole(me: Person, endpoint: OpenAIEndpoint, conversation: str) -> None:
    pieces = [f"{number:05d} " * 50 for number in range(2000)]
    endpoint.script(answer(*pieces))
    events = await me.ask(conversation)
    assert events[-1].completed.message.content == text_of(events) == "".join(pieces)
    assert bytes_of(await me.watch(events[0].run_id)) == bytes_of(events)

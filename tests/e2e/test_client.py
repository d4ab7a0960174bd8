"""The Python client on the running service."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from chatback.client import Answer, AnswerError, ChatBack, ChatBackError, Credentials, Password
from chatback.client.connection import Option
from chatback.v1.auth_service_pb2 import GetCurrentUserRequest, LogoutRequest, RegisterRequest
from chatback.v1.conversation_service_pb2 import (
    CreateConversationRequest,
    ListConversationsRequest,
    ListMessagesRequest,
)
from chatback.v1.run_pb2 import RunEvent
from tests.e2e.caller import PASSWORD, Person
from tests.e2e.service import Service, running
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer, refusal

FIRST_THAT_ANSWERS = ("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {}}]}')
WHO = GetCurrentUserRequest()


@asynccontextmanager
async def client(
    *services: Service, credentials: Credentials | None, options: Sequence[Option] = ()
) -> AsyncIterator[ChatBack]:
    """Connects to all of these replicas that are there."""
    async with ChatBack([each.target for each in services], credentials=credentials, options=options) as chat:
        yield chat


def known(person: Person) -> Password:
    return Password(person.user.email, PASSWORD)


async def converse(chat: ChatBack) -> str:
    """Makes a conversation and returns its id."""
    made = await chat.conversations.CreateConversation(CreateConversationRequest(title="here"))
    return made.conversation.conversation_id


async def content(chat: ChatBack, conversation_id: str) -> str:
    """Returns the newest message, as it is stored."""
    listed = await chat.conversations.ListMessages(ListMessagesRequest(conversation_id=conversation_id))
    return listed.messages[-1].content


async def test_a_program_registers_signs_in_and_is_answered(service: Service, endpoint: OpenAIEndpoint) -> None:
    email = f"{uuid4()}@example.org"
    async with client(service, credentials=Password(email, PASSWORD)) as chat:
        await chat.auth.Register(RegisterRequest(email=email, password=PASSWORD))
        assert (await chat.auth.GetCurrentUser(WHO)).user.email == email
        assert (await chat.ask(await converse(chat), "Hi")).content == "Hello world"


async def test_an_answer_is_followed_event_by_event(service: Service, endpoint: OpenAIEndpoint, me: Person) -> None:
    async with client(service, credentials=known(me)) as chat:
        conversation_id = await converse(chat)
        watched = chat.send(conversation_id, "Hi")
        events = [event async for event in watched]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert watched.text == events[-1].completed.message.content == await content(chat, conversation_id)
        assert [event async for event in chat.watch(watched.run_id, after_seq=1)] == events[1:]
        assert [event async for event in chat.watch(watched.run_id, after_seq=watched.seq)] == []


async def test_a_question_with_the_same_request_id_is_asked_once(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    async with client(service, credentials=known(me)) as chat:
        conversation_id = await converse(chat)
        first, second = [await chat.ask(conversation_id, "Hi", request_id="mine") for _ in range(2)]
    assert first == second
    assert len(endpoint.requests) == 1


async def test_expired_tokens_are_exchanged(service: Service, me: Person) -> None:
    me.tokens.access_expire_time.seconds = 1
    async with client(service, credentials=me.tokens) as chat:
        assert (await chat.auth.GetCurrentUser(WHO)).user == me.user
        assert chat.tokens is not None
        assert chat.tokens.refresh_token != me.tokens.refresh_token


async def test_a_password_begins_another_session_where_one_was_ended(service: Service, me: Person) -> None:
    async with client(service, credentials=known(me)) as chat:
        await chat.auth.Logout(LogoutRequest())
        assert (await chat.auth.GetCurrentUser(WHO)).user == me.user


async def test_what_is_wrong_with_a_request_is_said(service: Service, me: Person) -> None:
    async with client(service, credentials=known(me)) as chat:
        with pytest.raises(ChatBackError) as caught:
            await chat.conversations.ListConversations(ListConversationsRequest(page_size=-1))
    assert caught.value.reason == "INVALID_FIELD"
    assert [violation.field for violation in caught.value.field_violations] == ["page_size"]
    assert caught.value.request_id


async def test_a_failed_answer_is_an_error_with_its_reason(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    endpoint.script(refusal(401))
    async with client(service, credentials=known(me)) as chat:
        with pytest.raises(AnswerError) as caught:
            await chat.ask(await converse(chat), "Hi")
    assert caught.value.event.failed.reason == "MODEL_KEY_REFUSED"


async def test_an_answer_is_made_anew_and_a_question_asked_in_other_words(
    service: Service, endpoint: OpenAIEndpoint, me: Person
) -> None:
    endpoint.script(answer("A1"), answer("A2"), answer("A3"))
    async with client(service, credentials=known(me)) as chat:
        conversation_id = await converse(chat)
        first = await chat.ask(conversation_id, "Hi")
        second = await chat.regenerate(first.message_id, request_id="mine").message()
        assert await chat.regenerate(first.message_id, request_id="mine").message() == second
        third = await chat.ask(conversation_id, "Ho", edited_message_id=first.parent_message_id)
        listed = await chat.conversations.ListMessages(
            ListMessagesRequest(conversation_id=conversation_id, all_branches=True)
        )
    assert [(message.content, message.parent_message_id) for message in listed.messages] == [
        ("Hi", ""),
        ("Ho", ""),
        ("A1", first.parent_message_id),
        ("A2", first.parent_message_id),
        ("A3", third.parent_message_id),
    ]


async def test_an_answer_outlives_its_replica(
    service: Service, tmp_path: Path, endpoint: OpenAIEndpoint, me: Person
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    with running(tmp_path / "data", **service.urls, openai_base_url=endpoint.base_url, chat_model="model-1") as killed:
        async with client(killed, service, credentials=known(me), options=[FIRST_THAT_ANSWERS]) as chat:
            conversation_id, broke = await converse(chat), asyncio.Event()
            watched = chat.send(conversation_id, "Hi")
            watched.on_break = lambda _: broke.set()
            events = await until_text(watched)
            endpoint.script(answer("Good", " evening"))
            killed.signal(signal.SIGKILL)
            await killed.ended()
            events += [event async for event in watched]
            assert broke.is_set()
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert watched.text == await content(chat, conversation_id) == "Good evening"


async def test_an_answer_made_anew_goes_on_elsewhere_when_its_replica_stops(
    service: Service, tmp_path: Path, endpoint: OpenAIEndpoint, me: Person
) -> None:
    endpoint.script(answer("Hello"), answer("Good", asyncio.Event()))
    settings = {**service.urls, "openai_base_url": endpoint.base_url, "chat_model": "model-1", "drain_seconds": 0.5}
    with running(tmp_path / "data", **settings) as stopped:
        async with client(stopped, service, credentials=known(me), options=[FIRST_THAT_ANSWERS]) as chat:
            conversation_id = await converse(chat)
            watched = chat.regenerate((await chat.ask(conversation_id, "Hi")).message_id)
            events = await until_text(watched)
            endpoint.script(answer("Good", " evening"))
            stopped.signal()
            events += [event async for event in watched]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [e.attempt_reset.reason for e in events if e.HasField("attempt_reset")] == ["REPLICA_DRAINING"]
            assert watched.text == await content(chat, conversation_id) == "Good evening"
        assert await stopped.ended() == 0


async def until_text(watched: Answer) -> list[RunEvent]:
    """Reads an answer until it has begun."""
    events = []
    async for event in watched:
        events.append(event)
        if watched.text:
            break
    return events

"""The tests of a program that uses ChatBack: one container, started once, serves them all.

Environment: CHATBACK_IMAGE (default localhost/chatback).
"""

import asyncio
import os
import uuid
from collections.abc import Iterator

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from chatback.client import ChatBack, Password
from chatback.v1.auth_service_pb2 import RegisterRequest
from chatback.v1.conversation_pb2 import Message
from chatback.v1.conversation_service_pb2 import CreateConversationRequest, ListConversationsRequest


@pytest.fixture(scope="session")
def target() -> Iterator[str]:
    """Where ChatBack listens. It brings its own database, and as no model is configured the built-in one answers."""
    image = os.environ.get("CHATBACK_IMAGE", "localhost/chatback")
    ready = LogMessageWaitStrategy("ChatBack is ready").with_startup_timeout(60)
    container = DockerContainer(image).with_exposed_ports(50051).with_env("CHATBACK_ENVIRONMENT", "development")
    with container.waiting_for(ready) as chatback:
        yield f"{chatback.get_container_host_ip()}:{chatback.get_exposed_port(50051)}"


@pytest.fixture
def credentials(target: str) -> Password:
    """A user of this test's own, who sees nothing of the other tests."""
    person = Password(f"{uuid.uuid4()}@example.org", "a long passphrase")

    async def register() -> None:
        async with ChatBack(target) as chat:
            await chat.auth.Register(RegisterRequest(email=person.email, password=person.password))

    asyncio.run(register())
    return person


async def answer_to(question: str, chat: ChatBack) -> Message:
    """Stands for the program under test."""
    made = await chat.conversations.CreateConversation(CreateConversationRequest(title=question))
    return await chat.ask(made.conversation.conversation_id, question)


def test_a_question_is_answered(target: str, credentials: Password) -> None:
    async def ask() -> Message:
        async with ChatBack(target, credentials=credentials) as chat:
            return await answer_to("Where is my parcel?", chat)

    assert asyncio.run(ask()).content


def test_a_question_makes_one_conversation(target: str, credentials: Password) -> None:
    async def titles() -> list[str]:
        async with ChatBack(target, credentials=credentials) as chat:
            await answer_to("Where is my parcel?", chat)
            listed = await chat.conversations.ListConversations(ListConversationsRequest())
            return [conversation.title for conversation in listed.conversations]

    assert asyncio.run(titles()) == ["Where is my parcel?"]

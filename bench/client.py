"""A client that believes nothing: what it is sent has to be exactly what the model said."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

import grpc

from chatback.v1.auth_service_pb2 import LoginRequest, RegisterRequest
from chatback.v1.auth_service_pb2_grpc import AuthServiceStub
from chatback.v1.chat_service_pb2 import SendMessageRequest
from chatback.v1.chat_service_pb2_grpc import ChatServiceStub
from chatback.v1.conversation_service_pb2 import (
    CreateConversationRequest,
    GetConversationRequest,
    GetConversationResponse,
)
from chatback.v1.conversation_service_pb2_grpc import ConversationServiceStub
from chatback.v1.run_pb2 import RunEvent

CALL_SECONDS = 30.0
ANSWER_SECONDS = 120.0


class WrongAnswerError(Exception):
    """The service lost, repeated or mixed up something."""


@dataclass(frozen=True, slots=True)
class Client:
    """A signed-in user on one channel."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]

    @classmethod
    async def sign_up(cls, channel: grpc.aio.Channel) -> Self:
        """Registers somebody new and signs in."""
        auth = AuthServiceStub(channel)
        email, password = f"{uuid4()}@bench.example", str(uuid4())
        await auth.Register(RegisterRequest(email=email, password=password), timeout=CALL_SECONDS)
        login = await auth.Login(LoginRequest(email=email, password=password), timeout=CALL_SECONDS)
        return cls(channel, (("authorization", f"Bearer {login.tokens.access_token}"),))

    async def new_conversation(self) -> str:
        """Returns the id of a conversation made now."""
        made = await ConversationServiceStub(self.channel).CreateConversation(
            CreateConversationRequest(title="Measured"), metadata=self.metadata, timeout=CALL_SECONDS
        )
        return made.conversation.conversation_id

    async def conversation(self, request: GetConversationRequest) -> GetConversationResponse:
        """Gets a conversation."""
        stub = ConversationServiceStub(self.channel)
        return await stub.GetConversation(request, metadata=self.metadata, timeout=CALL_SECONDS)

    async def ask(self, conversation_id: str, text: str) -> AsyncIterator[str]:
        """Sends a message and yields the kind of each event of the answer, which must be exactly this text."""
        request = SendMessageRequest(conversation_id=conversation_id, content="hi")
        stub, transcript = ChatServiceStub(self.channel), Transcript()
        async for response in stub.SendMessage(request, metadata=self.metadata, timeout=ANSWER_SECONDS):
            yield transcript.add(*said_in(response.event))
        transcript.check(text)


class Transcript:
    """The events of one run, as they came."""

    def __init__(self) -> None:
        self._seq = 0
        self._pieces: list[str] = []
        self._final: str | None = None

    def add(self, seq: int, kind: str, said: str) -> str:
        """Takes the next event and returns its kind. Raises WrongAnswerError if it cannot be the next."""
        self._seq += 1
        if seq != self._seq or self._final is not None:
            raise WrongAnswerError(f"event {seq} came where {self._seq} was due")
        if kind == "text_delta":
            self._pieces.append(said)
        elif kind == "completed":
            self._final = said
        elif kind != "started":
            raise WrongAnswerError(f"the answer did not end well: {kind} {said}")
        return kind

    def check(self, text: str) -> None:
        """Raises WrongAnswerError unless both the pieces and the message at the end are this text."""
        if self.whole() != text:
            raise WrongAnswerError(f"the answer is not what the model said after {self._seq} events")

    def whole(self) -> str:
        """Returns the answer. Raises WrongAnswerError unless the pieces are the message at the end."""
        text = "".join(self._pieces)
        if self._final != text:
            raise WrongAnswerError(f"the pieces are not the message at the end after {self._seq} events")
        return text


def said_in(event: RunEvent) -> tuple[int, str, str]:
    """Returns an event's seq, its kind, and the text in it; of what is no part of an answer, all there is."""
    kind = event.WhichOneof("event") or "nothing"
    if kind == "text_delta":
        return event.seq, kind, event.text_delta.text
    return event.seq, kind, event.completed.message.content if kind == "completed" else str(event)

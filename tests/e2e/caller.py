"""What a caller of the service holds in the hand: stubs, who is signed in, and how a call failed."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from chatback.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    chat_service_pb2,
    chat_service_pb2_grpc,
    conversation_pb2,
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    model_service_pb2_grpc,
    run_pb2,
    user_pb2,
)

PASSWORD = "correct horse battery staple"
CALL_SECONDS = 30
WATCH_SECONDS = 60

Metadata: TypeAlias = "Sequence[tuple[str, str | bytes]]"
Call: TypeAlias = "Awaitable[Any] | AsyncIterable[Any]"


class SignedChannel:
    """A channel to those who make stubs of it; every call bears the metadata and a deadline."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._channel = channel
        self._metadata = metadata

    def unary_unary(self, *place: Any, **kinds: Any) -> Callable[..., Any]:
        """Makes what calls one method."""
        return self._signed(self._channel.unary_unary(*place, **kinds), CALL_SECONDS)

    def unary_stream(self, *place: Any, **kinds: Any) -> Callable[..., Any]:
        """Makes what calls one method."""
        return self._signed(self._channel.unary_stream(*place, **kinds), WATCH_SECONDS)

    def _signed(self, method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def call(request: Any, *, metadata: Metadata = (), timeout: float = seconds) -> Any:
            return method(request, metadata=(*self._metadata, *metadata), timeout=timeout)

        return call


class Client:
    """The stubs of all services, signed with a token or, without one, with nothing."""

    def __init__(self, channel: grpc.aio.Channel, token: str = "") -> None:
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        signed = cast("grpc.aio.Channel", SignedChannel(channel, metadata))
        self.auth = auth_service_pb2_grpc.AuthServiceStub(signed)
        self.conversations = conversation_service_pb2_grpc.ConversationServiceStub(signed)
        self.chat = chat_service_pb2_grpc.ChatServiceStub(signed)
        self.models = model_service_pb2_grpc.ModelServiceStub(signed)
        self.channel = channel


class Person(Client):
    """A user who is signed in."""

    def __init__(self, channel: grpc.aio.Channel, signed_in: auth_service_pb2.LoginResponse) -> None:
        super().__init__(channel, signed_in.tokens.access_token)
        self.user: user_pb2.User = signed_in.user
        self.tokens: user_pb2.Tokens = signed_in.tokens

    async def converse(self, title: str = "", **fields: Any) -> conversation_pb2.Conversation:
        """Makes a conversation."""
        request = conversation_service_pb2.CreateConversationRequest(title=title, **fields)
        return (await self.conversations.CreateConversation(request)).conversation

    def send(self, conversation: str, content: str = "Hello", **fields: Any) -> Any:
        """Asks for an answer and returns the call: a stream of responses that can be left or cancelled."""
        request = chat_service_pb2.SendMessageRequest(conversation_id=conversation, content=content, **fields)
        return self.chat.SendMessage(request)

    async def ask(self, conversation: str, content: str = "Hello", **fields: Any) -> list[run_pb2.RunEvent]:
        """Returns all events of an answer."""
        return await events_of(self.send(conversation, content, **fields))

    def regenerate(self, message_id: str, **fields: Any) -> Any:
        """Asks for another answer and returns the call."""
        return self.chat.RegenerateMessage(chat_service_pb2.RegenerateMessageRequest(message_id=message_id, **fields))

    async def watch(self, run_id: str, after_seq: int = 0) -> list[run_pb2.RunEvent]:
        """Returns all events of a run after a seq."""
        request = chat_service_pb2.StreamRunRequest(run_id=run_id, after_seq=after_seq)
        return await events_of(self.chat.StreamRun(request))

    async def run(self, run_id: str) -> run_pb2.Run:
        """Returns the run as it is now."""
        return (await self.chat.GetRun(chat_service_pb2.GetRunRequest(run_id=run_id))).run

    async def cancel(self, run_id: str) -> run_pb2.Run:
        """Asks the run to stop."""
        return (await self.chat.CancelRun(chat_service_pb2.CancelRunRequest(run_id=run_id))).run

    async def messages(self, conversation: str, **fields: Any) -> list[conversation_pb2.Message]:
        """Returns the first page of the branch in use."""
        request = conversation_service_pb2.ListMessagesRequest(conversation_id=conversation, **fields)
        return list((await self.conversations.ListMessages(request)).messages)


async def sign_up(channel: grpc.aio.Channel, email: str = "") -> Person:
    """Registers somebody new and signs them in."""
    email = email or f"{uuid4()}@example.org"
    request = auth_service_pb2.RegisterRequest(email=email, password=PASSWORD, display_name="Ada")
    await Client(channel).auth.Register(request)
    return await sign_in(channel, email)


async def sign_in(channel: grpc.aio.Channel, email: str, password: str = PASSWORD) -> Person:
    """Begins a session."""
    request = auth_service_pb2.LoginRequest(email=email, password=password)
    return Person(channel, await Client(channel).auth.Login(request))


async def events_of(call: AsyncIterable[Any]) -> list[run_pb2.RunEvent]:
    """Reads a stream to its end."""
    return [response.event async for response in call]


async def until_text(call: AsyncIterable[Any]) -> list[run_pb2.RunEvent]:
    """Reads a stream until the answer has begun; the call stays open, to be read on."""
    events: list[run_pb2.RunEvent] = []
    async for response in call:
        events.append(response.event)
        if response.event.WhichOneof("event") == "text_delta":
            return events
    raise AssertionError(f"the stream ended without text: {events}")


def text_of(events: Sequence[run_pb2.RunEvent]) -> str:
    """Joins the pieces of an answer."""
    return "".join(event.text_delta.text for event in events)


@dataclass(frozen=True, slots=True)
class Failure:
    """A status other than OK, with its details taken apart. `fields` are those that BadRequest names."""

    code: grpc.StatusCode
    message: str
    domain: str
    reason: str
    metadata: dict[str, str]
    fields: list[str]
    retry_seconds: float | None
    request_id: str


async def failure(call: Call) -> Failure:
    """Waits until the call failed, and tells how."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ended(call)
    return failure_in(caught.value)


def failure_in(error: grpc.aio.AioRpcError) -> Failure:
    """Takes the status and its details apart."""
    trailing: dict[str, Any] = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    info = _detail(status, error_details_pb2.ErrorInfo())
    bad = _detail(status, error_details_pb2.BadRequest())
    retry = error_details_pb2.RetryInfo()
    has_retry = any(detail.Unpack(retry) for detail in status.details)
    return Failure(
        code=error.code(),
        message=error.details() or "",
        domain=info.domain,
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=[violation.field for violation in bad.field_violations],
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
        request_id=trailing.get("x-request-id", ""),
    )


async def ended(call: Call) -> None:
    """Waits for the end of a call of either kind."""
    if isinstance(call, AsyncIterable):
        async for _ in call:
            pass
    else:
        await call


def _detail(status: status_pb2.Status, wanted: Any) -> Any:
    for detail in status.details:
        if detail.Unpack(wanted):
            break
    return wanted

"""What the chat does when a stream of events breaks, against a service that plays scripts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from chatback.v1 import auth_service_pb2, chat_service_pb2, run_pb2, user_pb2
from entrypoints.terminal import run_events
from entrypoints.terminal.run_events import follow
from entrypoints.terminal.session import Session

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Script: TypeAlias = "list[run_pb2.RunEvent | status_pb2.Status]"


def status(code: grpc.StatusCode, reason: str = "") -> status_pb2.Status:
    """Returns what a stream can end with instead of OK."""
    made = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="as scripted")
    if reason:
        made.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="chatback"))
    return made


def event(seq: int, **what: Any) -> run_pb2.RunEvent:
    return run_pb2.RunEvent(run_id="run", seq=seq, **what)


LOST = status(grpc.StatusCode.UNAVAILABLE)
STARTED = event(1, started=run_pb2.RunStarted(model="m"))
HELLO = event(2, text_delta=run_pb2.TextDelta(text="Hello"))
COMPLETED = event(3, completed=run_pb2.RunCompleted())
SEND = chat_service_pb2.SendMessageRequest(conversation_id="c", content="Hi", request_id="r")


def resumed(after_seq: int) -> tuple[str, bytes]:
    request = chat_service_pb2.StreamRunRequest(run_id="run", after_seq=after_seq)
    return "StreamRun", request.SerializeToString()


SENT = ("SendMessage", SEND.SerializeToString())


@dataclass(slots=True)
class Scripted:
    """A service of streams alone: each takes the next script. `calls` are (method, request), `tokens` the metadata."""

    scripts: list[Script]
    calls: list[tuple[str, bytes]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def handler(self, method: str) -> grpc.RpcMethodHandler[bytes, Any]:
        async def stream(request: bytes, context: Context) -> AsyncIterator[chat_service_pb2.SendMessageResponse]:
            self.calls.append((method, request))
            self.tokens.append(str(dict(context.invocation_metadata() or ())["authorization"]))
            for part in self.scripts.pop(0):
                if isinstance(part, status_pb2.Status):
                    rich = rpc_status.to_status(part)
                    await context.abort(rich.code, rich.details, rich.trailing_metadata)
                yield chat_service_pb2.SendMessageResponse(event=part)

        serialize = chat_service_pb2.SendMessageResponse.SerializeToString
        return grpc.unary_stream_rpc_method_handler(stream, response_serializer=serialize)

    @staticmethod
    async def renew(request: bytes, context: Context) -> auth_service_pb2.RefreshTokensResponse:
        return auth_service_pb2.RefreshTokensResponse(tokens=lasting(3600, "new"))


def lasting(seconds: int, name: str) -> user_pb2.Tokens:
    tokens = user_pb2.Tokens(access_token=name, refresh_token="refresh")
    tokens.access_expire_time.FromSeconds(int(time.time()) + seconds)
    return tokens


@asynccontextmanager
async def signed_in(service: Scripted, tokens: user_pb2.Tokens) -> AsyncIterator[Session]:
    """Serves on a free port."""
    renew: grpc.RpcMethodHandler[bytes, Any] = grpc.unary_unary_rpc_method_handler(
        service.renew, response_serializer=auth_service_pb2.RefreshTokensResponse.SerializeToString
    )
    streams = {method: service.handler(method) for method in ("SendMessage", "StreamRun")}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("chatback.v1.ChatService", streams),
            grpc.method_handlers_generic_handler("chatback.v1.AuthService", {"RefreshTokens": renew}),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Session(channel, tokens)
    finally:
        await server.stop(None)


@dataclass(slots=True)
class Seen:
    """What a watcher saw, and what the service saw of the watcher."""

    events: list[run_pb2.RunEvent]
    losses: int
    service: Scripted


async def watched(*scripts: Script, token_seconds: int = 3600) -> Seen:
    """Watches one answer to its end."""
    seen = Seen([], 0, Scripted(list(scripts)))

    def lose() -> None:
        seen.losses += 1

    async with signed_in(seen.service, lasting(token_seconds, "old")) as session:
        seen.events.extend([event async for event in follow(session, SEND, lose)])
    return seen


@pytest.fixture(autouse=True)
def no_time_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for less between attempts, and gives up sooner."""
    monkeypatch.setattr(run_events, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(run_events, "PATIENCE_SECONDS", 0.05)


async def test_a_stream_that_breaks_is_resumed_behind_its_newest_event() -> None:
    seen = await watched([STARTED, HELLO, LOST], [COMPLETED])
    assert seen.events == [STARTED, HELLO, COMPLETED]
    assert seen.service.calls == [SENT, resumed(2)]


async def test_a_question_is_repeated_with_its_request_id_until_its_run_is_known() -> None:
    seen = await watched([LOST], [LOST], [STARTED, COMPLETED])
    assert seen.events == [STARTED, COMPLETED]
    assert seen.service.calls == [SENT, SENT, SENT]


async def test_a_loss_is_told_once_however_long_it_takes() -> None:
    assert (await watched([STARTED, LOST], [LOST], [LOST], [COMPLETED])).losses == 1


async def test_a_stream_that_ends_well_before_the_last_event_is_resumed_too() -> None:
    seen = await watched([STARTED], [HELLO, COMPLETED])
    assert seen.events == [STARTED, HELLO, COMPLETED]


async def test_nothing_is_asked_for_after_the_last_event() -> None:
    assert (await watched([STARTED, COMPLETED])).service.calls == [SENT]


async def test_a_refusal_is_not_repeated() -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watched([status(grpc.StatusCode.NOT_FOUND, "CONVERSATION_NOT_FOUND")])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_patience_ends() -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watched([STARTED, LOST], *([LOST] for _ in range(100)))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_token_is_renewed_before_it_expires() -> None:
    assert (await watched([STARTED, COMPLETED], token_seconds=5)).service.tokens == ["Bearer new"]


async def test_a_token_that_is_refused_is_renewed() -> None:
    seen = await watched([status(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")], [STARTED, COMPLETED])
    assert seen.events == [STARTED, COMPLETED]
    assert seen.service.tokens == ["Bearer old", "Bearer new"]

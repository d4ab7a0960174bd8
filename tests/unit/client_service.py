"""A ChatBack that plays by script, for tests of the client: real gRPC, and nothing behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from chatback.client import ChatBack
from chatback.v1 import auth_service_pb2, chat_service_pb2, run_pb2, user_pb2

Part: TypeAlias = "Message | status_pb2.Status | asyncio.Event"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
STREAMS = {
    "SendMessage": chat_service_pb2.SendMessageResponse,
    "RegenerateMessage": chat_service_pb2.RegenerateMessageResponse,
    "StreamRun": chat_service_pb2.StreamRunResponse,
}
REQUESTS = {"Login": auth_service_pb2.LoginRequest, "RefreshTokens": auth_service_pb2.RefreshTokensRequest}


@dataclass(frozen=True, slots=True)
class Call:
    """What came: the method's name, the request's bytes, the token without "Bearer ", and the seconds it was given."""

    method: str
    request: bytes
    token: str
    seconds: float


class Scripted(grpc.GenericRpcHandler):
    """Each call of a method takes the next part of its script; the last part answers all that follow.

    - A part is a response, or a status to fail with. Of a stream it is a list of events, ended by a status or not.
    - An asyncio.Event is waited for, then the next part follows.

    `arrived` is set with the first call, `left` when a stream is over.
    """

    def __init__(self, **scripts: list[Any]) -> None:
        self.scripts = scripts
        self.calls: list[Call] = []
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = handler_call_details.method.rpartition("/")[2]
        if method in STREAMS:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method), response_serializer=_bytes)
        return grpc.unary_unary_rpc_method_handler(self._answering(method), response_serializer=_bytes)

    def called(self, method: str) -> list[Call]:
        """Returns the calls of one method."""
        return [call for call in self.calls if call.method == method]

    def _answering(self, method: str) -> Any:
        async def answer(request: bytes, context: Context) -> Message:
            self._note(method, request, context)
            part = self._next(method)
            if isinstance(part, asyncio.Event):
                await part.wait()
                part = self._next(method)
            if isinstance(part, status_pb2.Status):
                await _fail(context, part)
            return cast("Message", part)

        return answer

    def _streaming(self, method: str) -> Any:
        async def stream(request: bytes, context: Context) -> AsyncIterator[Message]:
            self._note(method, request, context)
            try:
                for part in self._next(method):
                    if isinstance(part, status_pb2.Status):
                        await _fail(context, part)
                    if isinstance(part, asyncio.Event):
                        await part.wait()
                    else:
                        yield STREAMS[method](event=part)
            finally:
                self.left.set()

        return stream

    def _note(self, method: str, request: bytes, context: Context) -> None:
        metadata: dict[str, Any] = dict(context.invocation_metadata() or ())
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        self.calls.append(Call(method, request, token, context.time_remaining()))
        self.arrived.set()

    def _next(self, method: str) -> Any:
        script = self.scripts[method]
        return script.pop(0) if len(script) > 1 else script[0]


@asynccontextmanager
async def client_of(service: Scripted, **settings: Any) -> AsyncIterator[ChatBack]:
    """Serves on a free port and yields a client of it."""
    async with served(service) as (target, _), ChatBack(target, **settings) as chat:
        yield chat


@asynccontextmanager
async def served(service: Scripted) -> AsyncIterator[tuple[str, grpc.aio.Server]]:
    """Serves on a free port and yields the address, and the server for who wants to stop it before the end."""
    server = grpc.aio.server(handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(None)


def status(
    code: grpc.StatusCode, reason: str = "", *, retry: float | None = None, **metadata: str
) -> status_pb2.Status:
    """Returns a failure, with details as the service gives them."""
    made = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="as scripted")
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="chatback", metadata=metadata)
        made.details.add().Pack(info)
    if retry is not None:
        wait = error_details_pb2.RetryInfo()
        wait.retry_delay.FromMilliseconds(round(retry * 1000))
        made.details.add().Pack(wait)
    return made


def tokens(seconds: int, name: str = "access") -> user_pb2.Tokens:
    """Returns tokens that are good for so many seconds more."""
    made = user_pb2.Tokens(access_token=name, refresh_token=f"refresh of {name}")
    made.access_expire_time.FromSeconds(int(time.time()) + seconds)
    return made


def logged_in(name: str = "access", seconds: int = 3600) -> auth_service_pb2.LoginResponse:
    """Returns what Login answers."""
    return auth_service_pb2.LoginResponse(tokens=tokens(seconds, name))


def refreshed(name: str = "new", seconds: int = 3600) -> auth_service_pb2.RefreshTokensResponse:
    """Returns what RefreshTokens answers."""
    return auth_service_pb2.RefreshTokensResponse(tokens=tokens(seconds, name))


def event(seq: int, **what: Any) -> run_pb2.RunEvent:
    """Returns an event of the one run there is."""
    return run_pb2.RunEvent(run_id="run", seq=seq, **what)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


async def _fail(context: Context, failure: status_pb2.Status) -> NoReturn:
    rich = rpc_status.to_status(failure)
    await context.abort(rich.code, rich.details, (*rich.trailing_metadata, ("x-request-id", "request")))


LOST = status(grpc.StatusCode.UNAVAILABLE)
REFUSED = status(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")
ENDED = status(grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
USER = auth_service_pb2.GetCurrentUserResponse()
WHO = auth_service_pb2.GetCurrentUserRequest()

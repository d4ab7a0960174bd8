"""The way every call takes before a servicer sees it, and back.

errors (outermost) > request id, log and metrics > authentication > admission > servicer. There is one interceptor, so
that this order stands in one place, `Pipeline._around`, and handlers are wrapped once for each method, not for each
call.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status
from structlog.contextvars import bind_contextvars, clear_contextvars

from application.authentication import Authenticator
from application.ports.clock import Clock
from application.ports.rate_limiter import RateLimiter
from application.ports.telemetry import UNWATCHED, MethodMeter, Telemetry
from domain.errors import ChatBackError, InvalidField, PermissionMissing, TokenInvalid, WatcherTooSlow
from domain.identity import Caller
from entrypoints.grpc import errors
from entrypoints.grpc.cursors import cursor_after, cursor_alone, cursor_before, is_last
from entrypoints.grpc.large_responses import LARGE_BYTES, LargeResponses
from entrypoints.grpc.open_streams import OpenStream, OpenStreams

PUBLIC_METHODS = frozenset(
    {
        "/chatback.v1.AuthService/Register",
        "/chatback.v1.AuthService/Login",
        "/chatback.v1.AuthService/RefreshTokens",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""All that may be called without a token; whatever is not on this list needs one."""
ACT_AS = "x-chatback-user"
"""Names the user on whose behalf a service calls."""
UNARY_SECONDS = 30
"""The longest a unary call may take, whatever deadline its client set."""

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""What a caller may name a call; anything else is replaced by an id of ours."""
_current_caller: ContextVar[Caller] = ContextVar("current_caller")
log = structlog.get_logger()


def current_caller() -> Caller:
    """Returns who calls; servicers pass it on as the first argument. Fails in a public method."""
    return _current_caller.get()


class ClientGoneError(Exception):
    """There is nobody left to answer."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands for a request whose bytes are no message of the method's type."""


class Pipeline(grpc.aio.ServerInterceptor):
    """Guards every method of the server in the same way."""

    def __init__(
        self,
        authenticator: Authenticator,
        limiter: RateLimiter,
        clock: Clock,
        streams: OpenStreams,
        telemetry: Telemetry = UNWATCHED,
    ) -> None:
        self._authenticator = authenticator
        self._limiter = limiter
        self._clock = clock
        self._streams = streams
        self._telemetry = telemetry
        self._large = LargeResponses()
        self._unknown = telemetry.method("", streams=False)
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the method's handler with this pipeline around it."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:  # answered UNIMPLEMENTED, and not kept: such names are the caller's
                self._unknown.started()
                self._unknown.handled("UNIMPLEMENTED", 0.0)
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if handler.request_streaming or not method.startswith("/chatback."):
            return handler if method in PUBLIC_METHODS else _refusing(handler)
        meter = self._telemetry.method(method, streams=handler.response_streaming)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, meter, handler.unary_stream, handler.response_serializer),
                _tolerant(handler.request_deserializer),
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, meter, handler.unary_unary),
            _tolerant(handler.request_deserializer),
            handler.response_serializer,
        )

    def _unary(self, method: str, meter: MethodMeter, behaviour: Any) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._around(method, meter, request, context), asyncio.timeout(UNARY_SECONDS):
                if method not in PUBLIC_METHODS:
                    await self._limiter.admit(current_caller().user_id)
                response = await behaviour(request, context)
                meter.sent()
                return response

        return call

    def _stream(self, method: str, meter: MethodMeter, behaviour: Any, serialize: Any) -> Any:
        async def call(request: Any, context: Context) -> None:
            async with self._around(method, meter, request, context):
                caller = current_caller()
                with self._streams.admitted(caller) as stream:
                    try:
                        async with aclosing(stream.shows(behaviour(request, context))) as responses:
                            await self._show(responses, serialize, stream, context, meter)
                    except grpc.aio.InternalError:  # what is written reaches nobody: the client has gone
                        raise ClientGoneError from None
                    except asyncio.CancelledError:
                        self._authenticator.check(caller)  # tells why, where the session's end was the reason
                        raise

        return call

    async def _show(
        self,
        responses: AsyncGenerator[Any, None],
        serialize: Any,
        stream: OpenStream,
        context: Context,
        meter: MethodMeter,
    ) -> None:
        """Writes: it costs less than yielding, and a call that is cancelled hears of it here, in its own task."""
        async for response in responses:
            data = serialize(response)
            if is_large := len(data) > LARGE_BYTES:  # while gRPC keeps it for its client, it is not kept here as well
                if is_last(response):
                    await responses.aclose()
                response = cursor_alone(response)  # noqa: PLW2901
            stream.beat += 1
            if is_large:
                await self._write_large(data, stream.caller, context, cursor_before(response))
            else:
                await context.write(data)
            stream.beat += 1
            meter.sent()
            if stream.is_ending:
                await stream.closed()
                self._authenticator.check(stream.caller)
                raise WatcherTooSlow(**cursor_after(response))

    async def _write_large(self, data: bytes, caller: Caller, context: Context, cursor: dict[str, str]) -> None:
        try:
            async with self._large.carrying(caller.user_id, len(data)):
                await context.write(data)
        except WatcherTooSlow as error:
            error.metadata = cursor
            raise

    @asynccontextmanager
    async def _around(self, method: str, meter: MethodMeter, request: Any, context: Context) -> AsyncIterator[None]:
        began, code = time.perf_counter(), "OK"
        meter.started()
        metadata = dict(context.invocation_metadata() or ())
        request_id = self._bind(method, metadata, peer_of(context, metadata))
        context.set_trailing_metadata((("x-request-id", request_id),))
        try:
            if method not in PUBLIC_METHODS:
                _current_caller.set(self._authenticate(metadata))
            _check_decodable(request)
            yield
        except ChatBackError as error:
            code = errors.code_of(error).name
            await _abort(context, errors.status_of(error), request_id)
        except TimeoutError:
            code = "DEADLINE_EXCEEDED"
            await _abort(context, errors.deadline_exceeded(), request_id)
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except ClientGoneError:
            code = "CANCELLED"
        except Exception:
            code, incident_id = "INTERNAL", str(self._clock.new_id())
            log.exception("call.broken", incident_id=incident_id)
            await _abort(context, errors.internal_error(incident_id), request_id)
        finally:
            seconds = time.perf_counter() - began
            meter.handled(code, seconds)
            log.info("call", code=code, ms=round(seconds * 1e3, 2))

    def _bind(self, method: str, metadata: dict[str, Any], peer: str) -> str:
        given = metadata.get("x-request-id", "")
        request_id = given if isinstance(given, str) and REQUEST_ID.fullmatch(given) else str(self._clock.new_id())
        clear_contextvars()
        bind_contextvars(request_id=request_id, method=method, peer=peer)
        return request_id

    def _authenticate(self, metadata: dict[str, Any]) -> Caller:
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer":
            raise TokenInvalid
        caller = self._authenticator.caller(token.strip())
        if ACT_AS in metadata:  # no credential can have the scope for it yet, and it is never ignored
            raise PermissionMissing
        bind_contextvars(user_id=str(caller.user_id))
        return caller


def peer_of(context: Context, metadata: Mapping[str, Any]) -> str:
    """Returns the caller's address. Only over the unix socket, which is the REST shim's own, metadata may tell it."""
    kind, _, address = context.peer().partition(":")
    if kind == "unix":
        return str(metadata.get("x-chatback-peer", "unix"))
    return unquote(address.rpartition(":")[0]).strip("[]")


def _check_decodable(request: Any) -> None:
    if isinstance(request, Undecodable):
        raise InvalidField("request", "is not a valid message of this method")


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Keeps grpc from answering INTERNAL with an exception's text when bytes are no message."""

    def tolerant(data: bytes) -> Any:
        with suppress(DecodeError):
            return deserialize(data) if deserialize else data
        return Undecodable()

    return tolerant


def _refusing(handler: Handler) -> Handler:
    """Closes a method that nobody listed: a library's service that is new here."""

    async def refuse(_: Any, context: Context) -> None:
        await _abort(context, errors.status_of(TokenInvalid()), "")

    return grpc.unary_unary_rpc_method_handler(refuse, handler.request_deserializer, handler.response_serializer)


async def _abort(context: Context, status: status_pb2.Status, request_id: str) -> None:
    """Ends the call. gRPC raises its AbortError again when the handler returns.

    It belongs to the call, and would keep every frame that it came through, with all that is in them, until the
    collector finds the circle.
    """
    rich = rpc_status.to_status(status)
    try:
        await context.abort(rich.code, rich.details, (*rich.trailing_metadata, ("x-request-id", request_id)))
    except grpc.aio.AbortError as ended:
        ended.__traceback__ = ended.__context__ = None

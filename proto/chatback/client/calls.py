"""What every call is given on its way: a token, a deadline, and another try where that is safe."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

from chatback.client.errors import ChatBackError, from_status
from chatback.client.pauses import Pauses
from chatback.client.tokens import TokenSource

STREAM_SECONDS = 600
"""How long one stream may stay open if its caller names no time; an Answer goes on with the next."""
PUBLIC = frozenset(f"/chatback.v1.AuthService/{method}" for method in ("Register", "Login", "RefreshTokens"))
REFRESH = "/chatback.v1.AuthService/RefreshTokens"
"""May be repeated within 10 s, although nothing but its documentation says so."""

Details: TypeAlias = grpc.aio.ClientCallDetails
Continuation: TypeAlias = Callable[[Details, Any], Awaitable[Any]]
Unary: TypeAlias = "grpc.aio.UnaryUnaryCall[Any, Any]"


class UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Guards the calls that are no streams. Each raises ChatBackError."""

    tokens: TokenSource

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: Details, request: Any
    ) -> Unary:
        """Returns the call that was answered, the first or a later one."""
        seconds = self._seconds if client_call_details.timeout is None else client_call_details.timeout
        try:
            async with asyncio.timeout(seconds):
                attempts = _Attempts(self.tokens, continuation, client_call_details, _repeatable(request), seconds)
                return await attempts.answered()
        except TimeoutError:
            late = grpc.StatusCode.DEADLINE_EXCEEDED
            raise ChatBackError(late, f"no answer within {seconds:g} s") from None


class StreamCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Guards the streams of responses. Each raises ChatBackError; for another try see Answer."""

    tokens: TokenSource

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: Details, request: Any
    ) -> AsyncIterator[Any]:
        """Returns the stream's responses."""
        token = await self.tokens.token()
        seconds = STREAM_SECONDS if client_call_details.timeout is None else client_call_details.timeout
        return self._responses(await continuation(_with(client_call_details, token, seconds), request), token)

    async def _responses(self, call: AsyncIterator[Any], token: str) -> AsyncIterator[Any]:
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as failed:
            error = from_status(failed)
            if error.is_about_the_token:
                self.tokens.refuse(token)
            raise error from None


class _Attempts:
    """One call, as often as it takes."""

    def __init__(
        self, tokens: TokenSource, continuation: Continuation, details: Details, request: Any, seconds: float
    ) -> None:
        self._tokens = tokens
        self._continuation = continuation
        self._details = details
        self._request = request
        self._path = _path(details)
        self._ends = time.monotonic() + seconds
        self._pauses = Pauses(self._ends)
        self._token = ""
        self._was_sent = False
        self._was_refused = False

    async def answered(self) -> Unary:
        """Returns the call that was answered. Raises the ChatBackError of one after which none is allowed."""
        while True:
            try:
                return await self._attempt()
            except ChatBackError as error:
                if not (self._has_another_token(error) or await self._may_be_repeated(error)):
                    raise

    async def _attempt(self) -> Unary:
        self._was_sent = False
        self._token = "" if self._path in PUBLIC else await self._tokens.token()
        self._was_sent = True
        try:
            call = await self._continuation(
                _with(self._details, self._token, self._ends - time.monotonic()), self._request
            )
            await call
        except grpc.aio.AioRpcError as failed:
            raise from_status(failed) from None
        return cast("Unary", call)

    def _has_another_token(self, error: ChatBackError) -> bool:
        if not self._was_sent or not error.is_about_the_token or self._was_refused:
            return False
        self._was_refused = True
        return self._tokens.refuse(self._token)

    async def _may_be_repeated(self, error: ChatBackError) -> bool:
        """Returns True, after a pause, if the call did nothing or does nothing more when it is repeated."""
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after is not None:
            return await self._pauses.wait(error.retry_after)
        is_safe = not self._was_sent or _is_idempotent(self._path) or bool(getattr(self._request, "request_id", ""))
        return error.is_about_the_connection and is_safe and await self._pauses.wait()


def _with(details: Details, token: str, seconds: float) -> Details:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if token:
        metadata.add("authorization", f"Bearer {token}")
    return grpc.aio.ClientCallDetails(details.method, seconds, metadata, details.credentials, details.wait_for_ready)


def _path(details: Details) -> str:
    path: str | bytes = details.method
    return path.decode() if isinstance(path, bytes) else path


def _repeatable(request: Any) -> Any:
    """Gives the request a request_id if it can have one and has none."""
    if getattr(request, "request_id", None) != "":
        return request
    copy = type(request)(request_id=str(uuid.uuid4()))
    copy.MergeFrom(request)
    return copy


@cache
def _is_idempotent(path: str) -> bool:
    name = path.removeprefix("/").replace("/", ".")
    options = descriptor_pool.Default().FindMethodByName(name).GetOptions()
    return path == REFRESH or options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN

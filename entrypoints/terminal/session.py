"""Calls in the name of one signed-in user."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import grpc

from chatback.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    chat_service_pb2,
    chat_service_pb2_grpc,
    conversation_service_pb2_grpc,
    model_service_pb2_grpc,
    run_pb2,
    user_pb2,
)
from entrypoints.terminal.failures import CALL_SECONDS, reason_of

STREAM_SECONDS = 600
"""How long one stream may take; an answer that takes longer is read on with the next."""
EARLY_SECONDS = 20
"""How long before its end an access token is renewed."""

Opening: TypeAlias = chat_service_pb2.SendMessageRequest | chat_service_pb2.StreamRunRequest
Metadata: TypeAlias = tuple[tuple[str, str]]
Q = TypeVar("Q")
A = TypeVar("A")


class Session:
    """The stubs, and tokens that are renewed when their time comes; nothing of it outlives the process."""

    def __init__(self, channel: grpc.aio.Channel, tokens: user_pb2.Tokens) -> None:
        self.conversations = conversation_service_pb2_grpc.ConversationServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.chat = chat_service_pb2_grpc.ChatServiceStub(channel)
        self._auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        self._tokens = tokens
        self._renewing = asyncio.Lock()

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        """Returns the method's answer. Raises AioRpcError."""
        try:
            return await method(request, timeout=CALL_SECONDS, metadata=await self._metadata())
        except grpc.aio.AioRpcError as error:
            if not self.forget_refused_token(error):
                raise
        return await method(request, timeout=CALL_SECONDS, metadata=await self._metadata())

    async def stream(self, request: Opening) -> AsyncGenerator[run_pb2.RunEvent, None]:
        """Yields the events of one stream as they come; leaving it closes it. Raises AioRpcError."""
        call = self._open(request, await self._metadata())
        try:
            async for response in call:
                yield response.event
        finally:
            call.cancel()

    def forget_refused_token(self, error: grpc.aio.AioRpcError) -> bool:
        """Tells whether the call failed for its access token alone, as where clocks differ; the next has a new one."""
        refused = reason_of(error) == "TOKEN_INVALID"
        if refused:
            self._tokens.access_expire_time.seconds = 0
        return refused

    async def end(self) -> None:
        """Signs out, if the service can be reached just now."""
        with suppress(grpc.aio.AioRpcError, TimeoutError):
            async with asyncio.timeout(2):
                await self._auth.Logout(auth_service_pb2.LogoutRequest(), timeout=2, metadata=await self._metadata())

    def _open(self, request: Opening, metadata: Metadata) -> grpc.aio.UnaryStreamCall[Any, Any]:
        if isinstance(request, chat_service_pb2.SendMessageRequest):
            return self.chat.SendMessage(request, timeout=STREAM_SECONDS, metadata=metadata)
        return self.chat.StreamRun(request, timeout=STREAM_SECONDS, metadata=metadata)

    async def _metadata(self) -> Metadata:
        async with self._renewing:
            if self._tokens.access_expire_time.seconds < time.time() + EARLY_SECONDS:
                request = auth_service_pb2.RefreshTokensRequest(refresh_token=self._tokens.refresh_token)
                self._tokens = (await self._auth.RefreshTokens(request, timeout=CALL_SECONDS)).tokens
        return (("authorization", f"Bearer {self._tokens.access_token}"),)

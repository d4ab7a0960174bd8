"""A gRPC server in this process, its callers, and what they read in a status."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from application.authentication import Authenticator, EndedSessions
from domain.identity import Caller
from entrypoints.grpc.open_streams import SLOW_SECONDS, OpenStreams
from entrypoints.grpc.pipeline import Pipeline
from tests.fakes.clock import FakeClock
from tests.fakes.database import FakeDatabase
from tests.fakes.rate_limiter import FakeRateLimiter
from tests.fakes.token_signer import FakeTokenSigner
from tests.fakes.unit_of_work import FakeUnitOfWorkFactory

LIFETIME = timedelta(minutes=10)


class Gate:
    """Everything that a pipeline needs, in memory."""

    def __init__(
        self,
        database: FakeDatabase | None = None,
        *,
        calls: int = 1000,
        open_streams: int = 2,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.database = database or FakeDatabase()
        self.clock: FakeClock = self.database.clock
        self.signer = FakeTokenSigner(self.clock)
        self.streams = OpenStreams(open_streams, slow_seconds=slow_seconds)
        self.ended = EndedSessions(FakeUnitOfWorkFactory(self.database), self.clock, LIFETIME, self.streams.end)
        self.pipeline = Pipeline(
            Authenticator(self.signer, self.clock, self.ended),
            FakeRateLimiter(self.clock, per_second=1, burst=calls),
            self.clock,
            self.streams,
        )

    def metadata(self, caller: Caller, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """What the caller sends along to be let in."""
        now = self.clock.now()
        return ("authorization", f"Bearer {self.signer.access_token(caller, now, now + LIFETIME)}"), *more


@asynccontextmanager
async def serving(
    server: grpc.aio.Server, gate: Gate, options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """Yields a channel to the server, on a port of its own."""
    await gate.ended.poll()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield channel
    finally:
        await server.stop(0)


@asynccontextmanager
async def guarded(
    gate: Gate, *add: Callable[[grpc.aio.Server], None], options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[grpc.aio.Channel]:
    """Serves what the functions add, behind the gate."""
    server = grpc.aio.server(interceptors=[gate.pipeline])
    for one in add:
        one(server)
    async with serving(server, gate, options) as channel:
        yield channel


def details(error: grpc.aio.AioRpcError) -> dict[type[Message], Any]:
    """Returns the rich details of a status by their type."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has what is read from a call
    found: dict[type[Message], Any] = {}
    for packed in status.details if status else ():
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(packed.value)
    return found


def info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Returns the ErrorInfo, an empty one where there is none."""
    return details(error).get(error_details_pb2.ErrorInfo, error_details_pb2.ErrorInfo())


def everything(error: grpc.aio.AioRpcError) -> str:
    """Returns all that the client was sent, for a search."""
    sent = [*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())]
    return f"{error.details()} {error.debug_error_string()} {sent!r}"

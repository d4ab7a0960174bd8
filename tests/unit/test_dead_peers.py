"""Clients that vanish without a word: their network is gone, so that neither an end nor a reset ever comes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from chatback.v1.chat_service_pb2 import SendMessageRequest
from chatback.v1.chat_service_pb2_grpc import ChatServiceStub
from entrypoints.grpc.auth import AuthServicer
from entrypoints.grpc.chat import ChatServicer
from entrypoints.grpc.conversations import ConversationServicer
from entrypoints.grpc.models import ModelServicer
from entrypoints.grpc.server import build_server
from entrypoints.rest.events import KEEP_ALIVE_SECONDS
from entrypoints.rest.server import UNACKNOWLEDGED_MS, listen
from tests.unit.edge import Gate
from tests.unit.replica import CATALOG, Replica


class Cable:
    """Leads connections to a port, until it is cut: then nothing passes any more, and nobody is told."""

    def __init__(self, port: int) -> None:
        self.is_cut = False
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[int]:
        """Yields the port of its near end."""
        server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for one, other in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pass_on(one, other)))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self.is_cut:
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()


@pytest.fixture
async def gate(replica: Replica) -> Gate:
    made = Gate(replica.database)
    await made.ended.poll()
    return made


@pytest.fixture
async def port(replica: Replica, gate: Gate) -> AsyncIterator[int]:
    """Where the service listens, which asks silent clients after a moment."""
    server = build_server(
        gate.pipeline,
        auth=AuthServicer(None),  # type: ignore[arg-type]  # nobody signs in
        conversations=ConversationServicer(replica.conversations),
        chat=ChatServicer(replica.chat),
        models=ModelServicer(CATALOG),
        max_request_mb=4,
        with_reflection=False,
        ping_seconds=0.3,
        ping_timeout_seconds=1,
    )
    number = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield number
    await server.stop(0)


async def test_a_stream_to_a_client_that_vanished_ends(replica: Replica, gate: Gate, port: int) -> None:
    conversation = await replica.conversation()
    cable = Cable(port)
    async with cable.laid() as near, grpc.aio.insecure_channel(f"127.0.0.1:{near}") as channel:
        request = SendMessageRequest(conversation_id=str(conversation.conversation_id), content="Hello")
        call: Any = ChatServiceStub(channel).SendMessage(request, metadata=gate.metadata(replica.caller))
        assert (await call.read()).event.HasField("started")
        assert len(gate.streams) == 1
        cable.is_cut = True
        async with asyncio.timeout(30):
            while len(gate.streams):  # noqa: ASYNC110 - it is gRPC that has to find out
                await asyncio.sleep(0.01)


def test_over_rest_the_system_finds_out_within_half_a_minute() -> None:
    """A comment goes out soon, and what nobody acknowledges ends the connection; a silent one is asked."""
    assert KEEP_ALIVE_SECONDS + UNACKNOWLEDGED_MS / 1000 <= 30
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        listener.setblocking(True)
        accepted, _ = listener.accept()
        with accepted:
            options = {
                name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            }
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert client.getpeername() == accepted.getsockname()
    assert options["TCP_USER_TIMEOUT"] == UNACKNOWLEDGED_MS
    assert options["TCP_KEEPIDLE"] + options["TCP_KEEPINTVL"] * options["TCP_KEEPCNT"] <= 30

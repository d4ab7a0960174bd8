"""Clients that ask and never read: what they cost the running service, and that nobody else feels it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import psutil
import pytest

from chatback.v1 import chat_service_pb2
from tests.e2e.caller import Client, Person, sign_up
from tests.e2e.conftest import copied
from tests.e2e.service import Service, running
from tests.e2e.test_metrics import metrics
from tests.e2e.web import rest_url
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

CLIENTS = 60
MEGABYTES = 50
NARROW = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.lookahead_bytes", 64 << 10),
    ("grpc.http2.bdp_probe", 0),
)
"""A client that takes 64 KiB of a stream, and no more until it is read."""


@pytest.fixture(scope="module")
def weighed(
    template: Path, tmp_path_factory: pytest.TempPathFactory, model_server: OpenAIEndpoint
) -> Iterator[Service]:
    """A service whose memory nobody else uses."""
    folder = copied(template, tmp_path_factory.mktemp("weighed") / "data")
    with running(folder, openai_base_url=model_server.base_url, log_level="warning") as started:
        yield started
    assert "Traceback" not in started.said


@pytest.fixture(scope="module")
async def reader(weighed: Service) -> AsyncIterator[Person]:
    """Somebody who does read."""
    async with grpc.aio.insecure_channel(weighed.target) as channel:
        yield await sign_up(channel)


@pytest.fixture(scope="module")
async def long_run(reader: Person, model_server: OpenAIEndpoint) -> tuple[str, int]:
    """An answer of a megabyte: its run, and the seq before its end."""
    model_server.script(answer(*("x" * 1000 for _ in range(1000))))
    events = await reader.ask((await reader.converse()).conversation_id)
    assert len(events[-1].completed.message.content) == 1_000_000
    return events[-1].run_id, events[-1].seq - 1


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize("where", ["from the start", "before the end"])
@pytest.mark.parametrize("over", ["gRPC", "REST"])
async def test_many_clients_that_never_read_cost_little_and_stop_nobody(
    weighed: Service, reader: Person, long_run: tuple[str, int], over: str, where: str
) -> None:
    run_id, seq = long_run
    before = psutil.Process(weighed.process.pid).memory_info().rss
    async with AsyncExitStack() as leaving:
        watch = watch_over_grpc if over == "gRPC" else watch_over_rest
        for _ in range(CLIENTS):
            await watch(leaving, weighed, reader, run_id, seq if where == "before the end" else 0)
        await until_nothing_moves(weighed)
        grown = psutil.Process(weighed.process.pid).memory_info().rss - before
        answered = await reader.ask((await reader.converse()).conversation_id)
    assert answered[-1].completed.message.content == "Hello world"
    assert grown < MEGABYTES * 1e6


async def watch_over_grpc(leaving: AsyncExitStack, service: Service, who: Person, run_id: str, after: int) -> None:
    """Asks for a stream on a connection of its own."""
    channel = await leaving.enter_async_context(grpc.aio.insecure_channel(service.target, options=NARROW))
    chat: Any = Client(channel, who.tokens.access_token).chat
    call = chat.StreamRun(chat_service_pb2.StreamRunRequest(run_id=run_id, after_seq=after))
    leaving.callback(call.cancel)


async def watch_over_rest(leaving: AsyncExitStack, service: Service, who: Person, run_id: str, after: int) -> None:
    """Asks for a stream of events on a connection with as little room as the system allows."""
    connection = leaving.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    place, loop = urlsplit(rest_url(service)), asyncio.get_running_loop()
    await loop.sock_connect(connection, (place.hostname, place.port))
    head = f"GET /v1/runs/{run_id}/events?after_seq={after} HTTP/1.1\r\nhost: x\r\n"
    await loop.sock_sendall(connection, f"{head}authorization: Bearer {who.tokens.access_token}\r\n\r\n".encode())


async def until_nothing_moves(service: Service) -> None:
    """Returns when all have been begun, and nothing has been sent to any of them for a moment."""
    seen = [-1.0]
    async with asyncio.timeout(60):
        while len(seen) == 1 or seen[-1] != seen[-2]:
            seen.append((await metrics(service)).value("grpc_server_msg_sent_total", grpc_method="StreamRun"))
            await asyncio.sleep(1)

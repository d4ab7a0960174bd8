"""The fault proxy does to connections what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import FaultProxy, Streams, to_port


@pytest.fixture
def heard() -> list[bytes]:
    """The lines that the server got."""
    return []


@pytest.fixture
async def proxy(heard: list[bytes]) -> AsyncIterator[FaultProxy]:
    """A proxy before a server that echoes lines."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                heard.append(line)
                writer.write(line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(to_port(lambda: port)) as proxying:
        yield proxying
    server.close()


async def connected(proxy: FaultProxy) -> Streams:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def said(streams: Streams, line: bytes) -> bytes:
    reader, writer = streams
    writer.write(line)
    async with asyncio.timeout(10):
        return await reader.readline()


async def test_bytes_pass_in_both_directions(proxy: FaultProxy) -> None:
    streams = await connected(proxy)
    assert await said(streams, b"one\n") == b"one\n"
    assert proxy.open_connections == 1
    streams[1].close()


async def test_the_end_of_one_side_is_the_end_of_the_other(proxy: FaultProxy) -> None:
    reader, writer = await connected(proxy)
    writer.write_eof()
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_a_cut_resets_open_connections_and_lets_new_ones_pass(proxy: FaultProxy) -> None:
    streams = await connected(proxy)
    assert await said(streams, b"one\n") == b"one\n"
    assert proxy.cut() == 1
    with pytest.raises(ConnectionResetError):
        await said(streams, b"two\n")
    again = await connected(proxy)
    assert await said(again, b"three\n") == b"three\n"
    again[1].close()


async def test_refused_connections_are_reset_until_it_heals(proxy: FaultProxy, heard: list[bytes]) -> None:
    proxy.refuse()
    streams = await connected(proxy)
    with pytest.raises(ConnectionResetError):
        await said(streams, b"one\n")
    proxy.heal()
    again = await connected(proxy)
    assert await said(again, b"two\n") == b"two\n"
    assert heard == [b"two\n"]
    again[1].close()


async def test_what_a_black_hole_took_arrives_late(proxy: FaultProxy, heard: list[bytes]) -> None:
    streams = await connected(proxy)
    assert await said(streams, b"one\n") == b"one\n"
    proxy.blackhole()
    late = asyncio.create_task(said(streams, b"two\n"))
    new = await connected(proxy)
    newer = asyncio.create_task(said(new, b"three\n"))
    assert not (await asyncio.wait([late, newer], timeout=0.2))[0]
    assert heard == [b"one\n"]
    proxy.heal()
    assert (await late, await newer) == (b"two\n", b"three\n")
    for _, writer in (streams, new):
        writer.close()


async def test_a_lost_reply_was_asked_for_and_never_arrives(proxy: FaultProxy, heard: list[bytes]) -> None:
    streams = await connected(proxy)
    proxy.lose_replies(to=b"COMMIT")
    assert await said(streams, b"one\n") == b"one\n"
    with pytest.raises(ConnectionResetError):
        await said(streams, b"COMMIT\n")
    assert heard == [b"one\n", b"COMMIT\n"]
    assert proxy.lost == 1
    again = await connected(proxy)
    assert await said(again, b"COMMIT\n") == b"COMMIT\n"
    again[1].close()


async def test_a_connection_is_cut_in_the_middle_of_a_reply(proxy: FaultProxy) -> None:
    reader, writer = await connected(proxy)
    assert await said((reader, writer), b"one\n") == b"one\n"
    proxy.cut_after(3)
    writer.write(b"a long line\n")
    async with asyncio.timeout(10):
        assert await reader.readexactly(3) == b"a l"
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_latency_holds_bytes_back(proxy: FaultProxy) -> None:
    streams = await connected(proxy)
    proxy.latency = 0.1
    began = asyncio.get_running_loop().time()
    assert await said(streams, b"one\n") == b"one\n"
    assert asyncio.get_running_loop().time() - began >= 0.2
    streams[1].close()

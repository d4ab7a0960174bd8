"""A TCP proxy that breaks connections in every way a network can, on command.

async with FaultProxy(to_port(lambda: 5432)) as proxy:
    ...                     # connect to proxy.port
    proxy.blackhole()       # from here on nothing passes in either direction, and nobody is told
    proxy.heal()            # what was on its way arrives now, late
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeAlias

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect: TypeAlias = Callable[[], Awaitable[Streams]]

CHUNK = 64 << 10


def to_unix(path: Callable[[], str]) -> Connect:
    """Leads to the unix socket that has this path when a connection is made."""
    return lambda: asyncio.open_unix_connection(path())


def to_port(port: Callable[[], int]) -> Connect:
    """Leads to the port of this machine that has this number when a connection is made."""
    return lambda: asyncio.open_connection("127.0.0.1", port())


class FaultProxy:
    """Listens on a port of 127.0.0.1 and leads to `connect`.

    - `latency` is how many seconds each chunk of bytes is held back, in both directions.
    - `lost` counts the replies that were lost on command.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.latency = 0.0
        self.lost = 0
        self.passes = asyncio.Event()
        self.passes.set()
        self.refuses = False
        self._server: asyncio.Server | None = None
        self._passages: set[_Passage] = set()
        self._to_lose: tuple[bytes, int] = (b"", 0)

    @property
    def port(self) -> int:
        """The port to connect to."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def open_connections(self) -> int:
        """How many connections lead through at this moment."""
        return len(self._passages)

    def cut(self) -> int:
        """Resets all connections, on both sides; returns how many."""
        passages = list(self._passages)
        for passage in passages:
            passage.cut()
        return len(passages)

    def cut_after(self, size: int) -> None:
        """Lets each open connection pass so many more bytes of replies, then resets it, in the middle of anything."""
        for passage in self._passages:
            passage.left = size

    def refuse(self) -> None:
        """Resets all connections, and new ones as soon as they are made."""
        self.refuses = True
        self.cut()

    def blackhole(self) -> None:
        """Accepts connections and bytes and passes nothing on, in either direction."""
        self.passes.clear()

    def lose_replies(self, to: bytes = b"", times: int = 1) -> None:
        """Passes the next `times` chunks with these bytes in them on, loses what is replied, and resets the connection.

        Whoever sent them can't know what came of it.
        """
        self._to_lose = (to, times)

    def heal(self) -> None:
        """Ends all faults. What a black hole holds goes on its way."""
        self.refuses, self.latency, self._to_lose = False, 0.0, (b"", 0)
        for passage in self._passages:
            passage.left = None
        self.passes.set()

    async def reach(self) -> Streams:
        """Connects to where the proxy leads."""
        return await self._connect()

    def is_to_be_lost(self, chunk: bytes) -> bool:
        """Says whether the reply to this chunk is to be lost; each time counts."""
        to, times = self._to_lose
        if not times or to not in chunk:
            return False
        self._to_lose = (to, times - 1)
        return True

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [passage.task for passage in self._passages]
        for passage in list(self._passages):
            passage.cut()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = _Passage(self, (reader, writer))
        self._passages.add(passage)
        passage.task.add_done_callback(lambda _: self._passages.discard(passage))


class _Passage:
    """One connection through the proxy. `left` is how many bytes of replies may still pass; None is any number."""

    def __init__(self, proxy: FaultProxy, client: Streams) -> None:
        self.left: int | None = None
        self._proxy = proxy
        self._sides = [client]
        self._is_deaf = False
        self.task = asyncio.create_task(self._carry())
        self.task.add_done_callback(lambda _: self._close())

    async def _carry(self) -> None:
        await self._proxy.passes.wait()
        if self._proxy.refuses:
            self._reset()
            return
        try:
            self._sides.append(await self._proxy.reach())
            (reader, writer), (server_reader, server_writer) = self._sides
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, server_writer, self._ask))
                both.create_task(self._pump(server_reader, writer, self._reply))
        except* OSError:
            self._reset()

    def cut(self) -> None:
        """Resets both sides."""
        self._reset()
        self.task.cancel()

    def _reset(self) -> None:
        for _, writer in self._sides:
            connection: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):  # a unix socket knows no lingering, a closed one nothing at all
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def _close(self) -> None:
        """Closes both sides, after what was written to them."""
        for _, writer in self._sides:
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: Callable[[bytes], bytes]
    ) -> None:
        while chunk := await reader.read(CHUNK):
            if self._proxy.latency:
                await asyncio.sleep(self._proxy.latency)
            await self._proxy.passes.wait()
            writer.write(allowed(chunk))
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()

    def _ask(self, chunk: bytes) -> bytes:
        self._is_deaf = self._is_deaf or self._proxy.is_to_be_lost(chunk)
        return chunk

    def _reply(self, chunk: bytes) -> bytes:
        if self._is_deaf:
            self._proxy.lost += 1
            self.cut()
            return b""
        if self.left is None:
            return chunk
        chunk, self.left = chunk[: self.left], max(self.left - len(chunk), 0)
        if self.left == 0:
            # After the loop's next turn, when the last bytes are out.
            asyncio.get_running_loop().call_soon(self.cut)
        return chunk

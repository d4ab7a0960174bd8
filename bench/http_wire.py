"""HTTP/1.1 as bare bytes, for the same reason as in bench.wire: the load must cost less than what it measures."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import cast

from bench.upstream import content_length
from bench.wire import CallsFailedError

SILENT_SECONDS = 30.0
"""How long a server may say nothing."""
GOOD = b"HTTP/1.1 200 "


class RepeatedRequest(asyncio.Protocol):
    """Makes the same request again and again on one connection, one at a time, until it is told to stop."""

    def __init__(self, request: bytes, expected: bytes) -> None:
        self._request, self._expected = request, expected
        self._received, self._stopping = bytearray(), False
        self._transport: asyncio.Transport
        self.count = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Makes no further request; the one in flight still counts, and then it is done."""
        self._stopping = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Makes the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the requests, badly if one was in flight."""
        self._fail("the connection was closed")

    def data_received(self, data: bytes) -> None:
        """Takes a whole response and makes the next request."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < content_length(head):
            return
        if not head.startswith(GOOD) or body != self._expected:
            self._fail("a response was not what it was before")
            return
        self._received.clear()
        self._go_on()

    def _go_on(self) -> None:
        self.count += 1
        if not self._stopping:
            self._transport.write(self._request)
        elif not self.done.done():
            self.done.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(CallsFailedError(f"{why}, after {self.count} calls"))


def request_of(start: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """Returns a request that starts with a method and a path."""
    lines = [f"{start} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """Takes the head of a response. Raises CallsFailedError with what came if it is not good."""
    async with asyncio.timeout(SILENT_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(GOOD):
        raise CallsFailedError(f"the server answered {head.splitlines()[0].decode()}")
    return head


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yields the chunks of a body. Raises IncompleteReadError if it breaks off."""
    while True:
        async with asyncio.timeout(SILENT_SECONDS):
            size = int(await reader.readuntil(b"\r\n"), 16)
            chunk = await reader.readexactly(size + 2)
        if not size:
            return
        yield chunk[:-2]

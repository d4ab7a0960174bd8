"""What a caller over REST holds in the hand: a session, and events as an EventSource reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tests.e2e.service import Service

SECONDS = aiohttp.ClientTimeout(total=30)


@lru_cache
def rest_url(service: Service) -> str:
    """Reads where it serves REST from what it says after the ready line."""
    assert service.process.stdout is not None
    return service.process.stdout.readline().removeprefix("REST on ").partition(",")[0]


@asynccontextmanager
async def signed_in(service: Service, token: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """Yields a session whose paths begin at the service and whose requests bear the token, if there is one."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(rest_url(service), headers=headers, timeout=SECONDS) as session:
        yield session


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, its data parsed."""

    id: str
    name: str
    data: Any

    @property
    def text(self) -> str:
        """The piece of the answer in it."""
        return str(self.data.get("event", {}).get("textDelta", {}).get("text", ""))


class EventSource:
    """One connection to a stream of events, over a socket of its own; everything beyond events is left out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._text = b""

    async def open(self, verb: str, path: str, token: str, body: object = None, last_event_id: str = "") -> int:
        """Asks, and returns the status."""
        content = msgspec.json.encode(body) if body is not None else b""
        head = f"{verb} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\naccept: text/event-stream\r\n"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        if last_event_id:
            head += f"last-event-id: {last_event_id}\r\n"
        self._writer.write(head.encode() + b"\r\n" + content)
        async with asyncio.timeout(30):
            answered = await self._reader.readuntil(b"\r\n\r\n")
        return int(answered.split()[1])

    async def events(self) -> AsyncIterator[Event]:
        """Yields events to the end of the stream."""
        async with asyncio.timeout(30):
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                self._text += (await self._reader.readexactly(size + 2))[:-2]
                *blocks, self._text = self._text.split(b"\n\n")
                for block in blocks:
                    if event := _event(block):
                        yield event

    def leave(self) -> None:
        """Closes the connection at once."""
        self._writer.transport.abort()


@asynccontextmanager
async def event_source(service: Service) -> AsyncIterator[EventSource]:
    """Yields a connection to the service."""
    place = urlsplit(rest_url(service))
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    source = EventSource(reader, writer)
    try:
        yield source
    finally:
        source.leave()


def _event(block: bytes) -> Event | None:
    lines = (line.partition(":") for line in block.decode().split("\n"))
    fields = {name: value.removeprefix(" ") for name, _, value in lines if name}
    if "data" not in fields:
        return None
    return Event(fields.get("id", ""), fields.get("event", "message"), msgspec.json.decode(fields["data"]))

"""Bodies of requests: bounded in size and time, each and all together, before anything is made of them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from starlette.types import Message, Receive

from entrypoints.rest.answers import JSON
from entrypoints.rest.refusals import (
    BODIES_TOO_MANY,
    BODY_INCOMPLETE,
    BODY_TOO_LARGE,
    MEDIA_TYPE_UNSUPPORTED,
    REQUEST_TOO_SLOW,
    Refused,
)

BODY_SECONDS = 20
"""How long a body may take to arrive."""
LINGER_SECONDS = 2
"""How long the rest of a refused body is taken, so that a client that only sends gets to read why."""
FREE_BYTES = 64 << 10
"""So much of each body is always taken: large ones keep no small one out."""
ROOM_BYTES = 64 << 20
"""What the rest of all bodies that are arriving may take together."""

Headers = Mapping[bytes, bytes]


class Incoming:
    """What comes of one request. `is_pending` as long as some of its body may still be on the way."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self.headers = headers
        self.is_pending = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        self._receive = receive

    async def receive(self) -> Message:
        """Returns what comes next."""
        message = await self._receive()
        self.is_pending = self.is_pending and bool(message.get("more_body"))
        return message

    async def discard(self) -> None:
        """Takes what still comes of a refused body, for a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self.is_pending:
                    await self.receive()


class Bodies:
    """Takes the bodies of all requests. `limit` is that of one, in bytes."""

    def __init__(self, limit: int, *, room: int = ROOM_BYTES) -> None:
        self._limit = limit
        self._room = room

    @asynccontextmanager
    async def taken(self, incoming: Incoming) -> AsyncIterator[bytes]:
        """Yields the JSON text of a request, empty where there is none; it counts for the block. Raises Refused."""
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while incoming.is_pending:
                    await self._take_more(body, incoming)
            if body:
                _check_is_json(incoming.headers)
            yield bytes(body)
        except TimeoutError:
            raise Refused(REQUEST_TOO_SLOW) from None
        finally:
            self._room += _counted(body)

    async def _take_more(self, body: bytearray, incoming: Incoming) -> None:
        if int(incoming.headers.get(b"content-length", b"0")) > self._limit:
            raise self._too_large()
        message = await incoming.receive()
        if message["type"] == "http.disconnect":
            raise Refused(BODY_INCOMPLETE)
        before = _counted(body)
        body += message["body"]
        self._room -= _counted(body) - before
        if len(body) > self._limit:
            raise self._too_large()
        if self._room < 0:
            raise Refused(BODIES_TOO_MANY, (b"retry-after", b"1"))

    def _too_large(self) -> Refused:
        return Refused(BODY_TOO_LARGE, limit=str(self._limit))


def _counted(body: bytearray) -> int:
    return max(0, len(body) - FREE_BYTES)


def _check_is_json(headers: Headers) -> None:
    """Refuses other types, and encodings: what a compressed body becomes is not bounded by what is sent."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != JSON or headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(MEDIA_TYPE_UNSUPPORTED, (b"accept", JSON), (b"accept-encoding", b"identity"))

"""Server streams as event streams (SSE): `id:` is the event's seq, `event:` its case, `data:` the response as JSON."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from starlette.types import Receive, Send

from entrypoints.rest.proto_json import to_json

FIRST_SECONDS = 2
"""How long a first event is waited for, so that a stream that fails has a status; then the answer begins without."""
KEEP_ALIVE_SECONDS = 10
"""How often a comment goes out: nothing in between takes the connection for dead, and one that is dead is found out."""
KEEP_ALIVE = b":\n\n"
SLICE_BYTES = 64 << 10
"""What is longer is sent in slices: a slice waits until the client has taken enough of those before."""
CONTENT_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
UNBUFFERED = ((b"x-accel-buffering", b"no"), (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

Frame = Callable[[Any], bytes]


def frame_for(response: Descriptor) -> Frame:
    """Returns what writes a response of this type as one event of the stream."""
    field = response.fields_by_name.get("event")
    event = field.message_type if field is not None else None
    if event is None or "seq" not in event.fields_by_name or not event.oneofs:
        return _plain
    return partial(_numbered, event.oneofs[0].name)


def error_frame(error: bytes) -> bytes:
    """Returns the event that ends a stream in place of a status: by then that one has been sent."""
    return b"event: error\ndata: %b\n\n" % error


def _plain(message: Message) -> bytes:
    return b"data: %b\n\n" % to_json(message)


def _numbered(oneof: str, message: Any) -> bytes:
    event = message.event
    name = event.WhichOneof(oneof) or "message"
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, name.encode(), to_json(message))


class EventStream:
    """One stream on its way to one client."""

    def __init__(self, call: Any, receive: Receive, send: Send, request_id: str) -> None:
        self._call = call
        self._receive = receive
        self._send = send
        self._head = [*UNBUFFERED, (b"x-request-id", request_id.encode())]
        self._turn = asyncio.Lock()
        self._has_left = False
        self.has_begun = False

    async def relay(self, frame: Frame) -> None:
        """Passes everything on until the call or the client ends. Raises AioRpcError as the call does."""
        attending = asyncio.create_task(self._attend())
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                await self.write(frame(response))
        except asyncio.CancelledError:
            if not self._has_left:
                raise
        finally:
            attending.cancel()
            self._call.cancel()

    async def write(self, data: bytes) -> None:
        """Sends data, after status and headers where they have not been sent; waits while the client is slow."""
        async with self._turn:
            if not self.has_begun:
                self.has_begun = True
                await self._send({"type": "http.response.start", "status": 200, "headers": [CONTENT_TYPE, *self._head]})
            for start in range(0, len(data), SLICE_BYTES):
                piece = data[start : start + SLICE_BYTES]  # of what is short, the same bytes again
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """Ends the answer; a stream that held nothing is 204, which tells an EventSource not to come back."""
        if not self.has_begun:
            await self._send({"type": "http.response.start", "status": 204, "headers": self._head})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _attend(self) -> None:
        """Cancels the call when the client leaves, and says now and then that the stream lives."""
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS if self.has_begun else FIRST_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                await self.write(KEEP_ALIVE)
            else:
                if message["type"] == "http.disconnect":
                    self._has_left = True
                    self._call.cancel()
                    return

"""gRPC calls as bare HTTP/2 frames: they cost a tenth of a grpc.aio client's, so the server is the bottleneck.

It knows only what a load takes: flow control is opened wide at the start, and trailers are not read, as the responses
themselves tell whether a call went well.
"""

import asyncio
from collections.abc import Mapping
from typing import cast

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
WIDEST = 2**31 - 1
WIDE_STREAMS = b"\x00\x04" + WIDEST.to_bytes(4, "big")
"""A setting: how much may come on each stream before it is acknowledged, which it never is."""
GRPC = {":method": "POST", ":scheme": "http", "te": "trailers", "content-type": "application/grpc"}


class CallsFailedError(Exception):
    """The server refused, closed, or answered something else."""


class Connection(asyncio.Protocol):
    """The client's side of one connection: greets, answers what must be answered, and cuts what comes into frames."""

    def __init__(self) -> None:
        self._next = 1
        self._received = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets."""
        self._transport = cast(asyncio.Transport, transport)
        window = frame(WINDOW_UPDATE, 0, 0, (WIDEST - 65_535).to_bytes(4, "big"))
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, WIDE_STREAMS) + window)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the calls, badly if some were in flight."""
        self.fail("the connection was closed")

    def data_received(self, data: bytes) -> None:
        """Takes the whole frames off what came and answers them in one write."""
        self._received += data
        answers, position, size = [], 0, len(self._received)
        while size - position >= 9:
            end = position + 9 + int.from_bytes(self._received[position : position + 3], "big")
            if end > size:
                break
            kind, flags = self._received[position + 3], self._received[position + 4]
            stream = int.from_bytes(self._received[position + 5 : position + 9], "big")
            answers.append(self._take(kind, flags, stream, bytes(self._received[position + 9 : end])))
            position = end
        del self._received[:position]
        self._transport.write(b"".join(answers))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """Takes one frame and returns the frames that answer it."""
        if kind == DATA:
            self.data(stream, payload)
        elif kind == HEADERS and flags & END_STREAM:
            return self.ended(stream)
        elif kind in (SETTINGS, PING) and not flags & ACK:
            return frame(kind, ACK, 0, payload if kind == PING else b"")
        elif kind not in (HEADERS, SETTINGS, PING, WINDOW_UPDATE):
            self.fail(f"an HTTP/2 frame of type {kind} came")
        return b""

    def called(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        """Returns the number of a new stream and the frames that begin a call on it."""
        stream, self._next = self._next, self._next + 2
        return stream, frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, body)

    def data(self, stream: int, payload: bytes) -> None:
        """Takes a part of a stream's responses."""
        raise NotImplementedError

    def ended(self, stream: int) -> bytes:
        """Takes a stream's end and returns the frames of what comes next."""
        raise NotImplementedError

    def fail(self, why: str) -> None:
        """Ends all calls that are in flight."""
        raise NotImplementedError


class RepeatedCall(Connection):
    """Makes the same call again and again on one connection, `in_flight` at a time, until it is told to stop.

    Requests are bytes made once; a response is good if its bytes are the ones that are due.
    """

    def __init__(self, headers: Mapping[str, str], request: bytes, expected: bytes, in_flight: int) -> None:
        super().__init__()
        self._head, self._body = literal(headers), message(request)
        self._expected = message(expected)
        self._in_flight = in_flight
        self._bodies: dict[int, bytes] = {}
        self._stopping = False
        self.count = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Makes no further call; those in flight still count, and then it is done."""
        self._stopping = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets and makes the first calls."""
        super().connection_made(transport)
        self._transport.write(b"".join(self._call() for _ in range(self._in_flight)))

    def data(self, stream: int, payload: bytes) -> None:
        """Gathers a response."""
        self._bodies[stream] += payload

    def ended(self, stream: int) -> bytes:
        """Compares the response with the one that is due and calls again."""
        if self._bodies.pop(stream) != self._expected:
            self.fail("a response was not what it was before")
        self.count += 1
        if not self._stopping:
            return self._call()
        if not self._bodies and not self.done.done():
            self.done.set_result(None)
        return b""

    def fail(self, why: str) -> None:
        """Ends everything, unless it has ended."""
        if not self.done.done():
            self.done.set_exception(CallsFailedError(f"{why}, after {self.count} calls"))

    def _call(self) -> bytes:
        stream, frames = self.called(self._head, self._body)
        self._bodies[stream] = b""
        return frames


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns an HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(headers: Mapping[str, str]) -> bytes:
    """Returns a header block that needs no table: each name and value as plain text."""
    return b"".join(b"\x00" + text(name) + text(value) for name, value in headers.items())


def text(value: str) -> bytes:
    """Returns HPACK's plain string: its length, with the lowest 7 bits of each byte, then the bytes."""
    rest, prefix = len(value) - 127, bytearray()
    if rest < 0:
        return bytes((len(value),)) + value.encode()
    while rest >= 128:
        prefix.append(rest % 128 | 128)
        rest //= 128
    return b"\x7f" + bytes(prefix) + bytes((rest,)) + value.encode()


def message(payload: bytes) -> bytes:
    """Returns a gRPC message, uncompressed."""
    return b"\x00" + len(payload).to_bytes(4, "big") + payload

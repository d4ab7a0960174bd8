"""Streamed gRPC calls as bare HTTP/2 frames, many on one connection."""

from collections.abc import Callable, Mapping
from typing import Protocol

from bench.wire import Connection, frame, literal, message

RST_STREAM = 3
CANCEL = (8).to_bytes(4, "big")


class Receiver(Protocol):
    """Who takes the responses of one call."""

    def take(self, response: bytes) -> None:
        """Takes the next response."""
        ...

    def close(self) -> None:
        """Takes the end, good or bad."""
        ...


class StreamingCalls(Connection):
    """Makes calls that are answered by streams."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, tuple[Receiver, bytearray]] = {}

    def call(self, headers: Mapping[str, str], request: bytes, receiver: Receiver) -> Callable[[], None]:
        """Begins a call and returns what leaves it: then its receiver hears nothing more."""
        stream, frames = self.called(literal(headers), message(request))
        self._receivers[stream] = receiver, bytearray()
        self._transport.write(frames)
        return lambda: self._leave(stream)

    def data(self, stream: int, payload: bytes) -> None:
        """Cuts what came into responses."""
        if stream in self._receivers:
            receiver, received = self._receivers[stream]
            received += payload
            while len(received) >= 5 and len(received) >= (end := 5 + int.from_bytes(received[1:5], "big")):
                receiver.take(bytes(received[5:end]))
                del received[:end]

    def ended(self, stream: int) -> bytes:
        """Tells the receiver."""
        if stream in self._receivers:
            self._receivers.pop(stream)[0].close()
        return b""

    def fail(self, why: str) -> None:
        """Tells all receivers."""
        for receiver, _ in self._receivers.values():
            receiver.close()

    def _leave(self, stream: int) -> None:
        if self._receivers.pop(stream, None):
            self._transport.write(frame(RST_STREAM, 0, stream, CANCEL))

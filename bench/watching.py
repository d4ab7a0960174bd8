"""Watchers of answers whose every token is the moment at which the model wrote it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from bench.client import Transcript, WrongAnswerError, said_in
from bench.streaming import StreamingCalls
from bench.wire import GRPC
from chatback.v1.chat_service_pb2 import SendMessageRequest, SendMessageResponse, StreamRunRequest, StreamRunResponse

CONNECT_SECONDS = 20.0
SERVICE = "/chatback.v1.ChatService"
Request: TypeAlias = SendMessageRequest | StreamRunRequest
Response: TypeAlias = SendMessageResponse | StreamRunResponse


@dataclass(slots=True)
class Room:
    """All who watch at one replica, and the ages, in seconds, of the tokens that came while all of them had text."""

    wanted: int
    tokens: int
    talking: int = 0
    ages: list[float] = field(default_factory=list)

    def note(self, now: int, said: str) -> None:
        """Notes the ages of tokens."""
        if self.talking == self.wanted:
            self.ages.extend((now - int(stamp)) / 1e9 for stamp in said.split())

    def check(self, text: str) -> None:
        """Raises WrongAnswerError unless these are all the tokens of an answer."""
        stamps = [int(stamp) for stamp in text.split()]
        if len(stamps) != self.tokens or stamps != sorted(stamps):
            raise WrongAnswerError(f"{len(stamps)} tokens came of {self.tokens}, or not in their order")


class Watcher:
    """Takes one answer, as the receiver of a call. `begun` and `ended` fail if it is not exactly what it should be."""

    def __init__(self, room: Room, parse: Callable[[bytes], Response]) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[str] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._room, self._parse = room, parse
        self._transcript, self._talks = Transcript(), False

    def take(self, response: bytes) -> None:
        """Takes the next event."""
        now, event = time.monotonic_ns(), self._parse(response).event
        seq, kind, said = said_in(event)
        try:
            self._transcript.add(seq, kind, said)
        except WrongAnswerError as error:
            self._end(error)
        if not self.begun.done():
            self.begun.set_result(event.run_id)
        if kind == "text_delta":
            self._room.talking += not self._talks
            self._talks = True
            self._room.note(now, said)

    def close(self) -> None:
        """Takes the end."""
        self._room.talking -= self._talks
        try:
            self._room.check(self._transcript.whole())
        except WrongAnswerError as error:
            self._end(error)
        self._end(None)

    def _end(self, error: WrongAnswerError | None) -> None:
        for future in (self.begun, self.ended):
            if error and not future.done():
                future.set_exception(error)
        if not self.ended.done():
            self.ended.set_result(None)


@dataclass(frozen=True, slots=True)
class Replica:
    """Where one calls, as whom, and the connection for it."""

    address: str
    metadata: tuple[tuple[str, str], ...]
    calls: StreamingCalls

    def call(self, method: str, request: Request, watcher: Watcher) -> Callable[[], None]:
        """Begins a call and returns what leaves it."""
        headers = {**GRPC, ":path": f"{SERVICE}/{method}", ":authority": self.address, **dict(self.metadata)}
        return self.calls.call(headers, request.SerializeToString(), watcher)


async def replica(address: str, metadata: tuple[tuple[str, str], ...]) -> Replica:
    """Connects to a replica."""
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    _, calls = await asyncio.wait_for(loop.create_connection(StreamingCalls, host, int(port)), CONNECT_SECONDS)
    return Replica(address, metadata, calls)

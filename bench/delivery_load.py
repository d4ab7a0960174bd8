"""The load that looks at how old words are when they come: every token is the moment at which the model wrote it.

    python -m bench.delivery_load ADDRESS PID STREAMS TOKENS
    python -m bench.delivery_load ADDRESS PID STREAMS TOKENS --there ADDRESS --there-pid PID --watch there|both

`here` is the replica that is asked and makes the answers, `there` another one. Only tokens that come while all streams
have text count, so neither the rush of the begin nor a half-empty end does. The age is that at this program, which
shares its core with the model: it holds, beside what the service takes, the model's write and the wait for this client.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import msgspec
import psutil
import uvloop

from bench.client import ANSWER_SECONDS, Client, Transcript, WrongAnswerError, said_in
from bench.load import CONNECT_SECONDS, SET_UP_CALLS, WARM_UP_ANSWERS, bounded
from bench.reading import Reading
from bench.seen import Ages, DeliveriesSeen
from bench.streaming import StreamingCalls
from bench.wire import GRPC
from chatback.v1.chat_service_pb2 import SendMessageRequest, SendMessageResponse, StreamRunRequest, StreamRunResponse

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


@dataclass(frozen=True, slots=True)
class Scene:
    """The replica that answers are asked of, and the rooms where they are watched, here or at another one."""

    here: Replica
    there: Replica | None
    at_home: Room
    abroad: Room
    watch: str
    gate: asyncio.Semaphore

    async def listen(self, conversation_id: str) -> None:
        """Asks in a conversation and watches; who watches only elsewhere leaves once the run is known."""
        async with self.gate:
            asker = Watcher(self.at_home, SendMessageResponse.FromString)
            leave = self.here.call(
                "SendMessage", SendMessageRequest(conversation_id=conversation_id, content="hi"), asker
            )
            run_id = await asker.begun
        ends = [asker.ended]
        if self.watch == "there":
            leave()
            ends.clear()
        if self.watch != "here" and self.there is not None:
            other = Watcher(self.abroad, StreamRunResponse.FromString)
            self.there.call("StreamRun", StreamRunRequest(run_id=run_id), other)
            ends.append(other.ended)
        await asyncio.wait_for(asyncio.gather(*ends), ANSWER_SECONDS)


async def deliveries(
    client: Client, here: Replica, there: Replica | None, parsed: argparse.Namespace
) -> DeliveriesSeen:
    """Asks on all streams at once, some of them not yet begun, and returns how old the words were that came."""

    def scene() -> Scene:
        rooms = (Room(parsed.streams, parsed.tokens) for _ in range(2))
        return Scene(here, there, *rooms, parsed.watch, asyncio.Semaphore(SET_UP_CALLS))

    asked = [client.new_conversation() for _ in range(parsed.streams + WARM_UP_ANSWERS)]
    conversations = await bounded(SET_UP_CALLS, asked)
    for conversation_id in conversations[parsed.streams :]:
        await scene().listen(conversation_id)
    servers = [psutil.Process(pid) for pid in (parsed.pid, parsed.there_pid) if pid]
    shown, before = scene(), [Reading.now(server) for server in servers]
    await asyncio.gather(*map(shown.listen, conversations[: parsed.streams]))
    after = [Reading.now(server) for server in servers]
    return DeliveriesSeen(
        parsed.streams * parsed.tokens,
        sum(later.server - sooner.server for sooner, later in zip(before, after, strict=True)),
        before[0].load_core_busy(after[0]),
        Ages.of(shown.at_home.ages),
        Ages.of(shown.abroad.ages),
    )


async def replica(address: str, metadata: tuple[tuple[str, str], ...]) -> Replica:
    """Connects to a replica."""
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    _, calls = await asyncio.wait_for(loop.create_connection(StreamingCalls, host, int(port)), CONNECT_SECONDS)
    return Replica(address, metadata, calls)


async def main(parsed: argparse.Namespace) -> None:
    """Connects, signs up, puts on the load and prints what was seen as JSON."""
    async with grpc.aio.insecure_channel(parsed.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_SECONDS)
        client = await Client.sign_up(channel)
        here = await replica(parsed.address, client.metadata)
        there = await replica(parsed.there, client.metadata) if parsed.there else None
        print(msgspec.json.encode(await deliveries(client, here, there, parsed)).decode())


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.delivery_load")
    parser.add_argument("address")
    parser.add_argument("pid", type=int)
    parser.add_argument("streams", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("--there", metavar="ADDRESS", help="another replica")
    parser.add_argument("--there-pid", metavar="PID", type=int)
    parser.add_argument("--watch", choices=("here", "there", "both"), default="here")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        uvloop.run(main(arguments()))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except (WrongAnswerError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

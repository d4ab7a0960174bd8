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
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

import grpc
import msgspec
import psutil
import uvloop

from bench.client import ANSWER_SECONDS, Client, Transcript, WrongAnswerError, said_in
from bench.load import CONNECT_SECONDS, SET_UP_CALLS, WARM_UP_ANSWERS, bounded
from bench.reading import Reading
from bench.seen import Ages, DeliveriesSeen
from chatback.v1.chat_service_pb2 import SendMessageRequest, SendMessageResponse, StreamRunRequest, StreamRunResponse
from chatback.v1.chat_service_pb2_grpc import ChatServiceStub

E = TypeVar("E", bound=BaseException)
Responses: TypeAlias = AsyncIterable[SendMessageResponse | StreamRunResponse]


@dataclass(slots=True)
class Watchers:
    """All who watch at one replica, and the ages, in seconds, of the tokens that came while all of them had text."""

    wanted: int
    tokens: int
    talking: int = 0
    ages: list[float] = field(default_factory=list)

    async def watch(self, responses: Responses) -> AsyncIterator[str]:
        """Takes an answer to its end and yields its run's id at each event. Raises WrongAnswerError."""
        transcript, talks = Transcript(), False
        async for response in responses:
            now, (seq, kind, said) = time.monotonic_ns(), said_in(response.event)
            transcript.add(seq, kind, said)
            if kind == "text_delta":
                self.talking += not talks
                talks = True
                self._note(now, said)
            yield response.event.run_id
        self.talking -= 1
        self._check(transcript.whole())

    def _note(self, now: int, said: str) -> None:
        if self.talking == self.wanted:
            self.ages.extend((now - int(stamp)) / 1e9 for stamp in said.split())

    def _check(self, text: str) -> None:
        stamps = [int(stamp) for stamp in text.split()]
        if len(stamps) != self.tokens or stamps != sorted(stamps):
            raise WrongAnswerError(f"{len(stamps)} tokens came of {self.tokens}, or not in their order")


@dataclass(frozen=True, slots=True)
class Scene:
    """Where one answer after the other is asked for and where it is watched."""

    asker: Client
    there: Client | None
    at_home: Watchers | None
    abroad: Watchers | None
    gate: asyncio.Semaphore

    async def listen(self, room: str) -> None:
        """Asks in a conversation and watches the answer; who watches only elsewhere leaves once the run is known."""
        request = SendMessageRequest(conversation_id=room, content="hi")
        await self.gate.acquire()
        call = ChatServiceStub(self.asker.channel).SendMessage(
            request, metadata=self.asker.metadata, timeout=ANSWER_SECONDS
        )
        async with asyncio.TaskGroup() as group:
            if self.at_home is None:
                run_id = await first_run(call)
                call.cancel()
                self._follow(group, run_id)
                return
            known = False
            async for run_id in self.at_home.watch(call):
                if not known:
                    known = True
                    self._follow(group, run_id)

    def _follow(self, group: asyncio.TaskGroup, run_id: str) -> None:
        self.gate.release()
        if self.there is not None and self.abroad is not None:
            stub = ChatServiceStub(self.there.channel)
            request = StreamRunRequest(run_id=run_id)
            call = stub.StreamRun(request, metadata=self.there.metadata, timeout=ANSWER_SECONDS)
            group.create_task(to_the_end(self.abroad.watch(call)))


async def first_run(call: Responses) -> str:
    """Returns the run that a call begins."""
    async for response in call:
        return response.event.run_id
    raise WrongAnswerError("the answer had no first event")


async def to_the_end(events: AsyncIterator[str]) -> None:
    """Takes all events."""
    async for _ in events:
        pass


async def deliveries(here: Client, there: Client | None, parsed: argparse.Namespace) -> DeliveriesSeen:
    """Asks on all streams at once, some of them not yet begun, and returns how old the words were that came."""
    watchers = partial(Watchers, parsed.streams, parsed.tokens)
    at_home = watchers() if parsed.watch != "there" else None
    abroad = watchers() if parsed.watch != "here" else None
    gate = asyncio.Semaphore(SET_UP_CALLS)
    rooms = await bounded(SET_UP_CALLS, [here.new_conversation() for _ in range(parsed.streams + WARM_UP_ANSWERS)])
    for room in rooms[parsed.streams :]:
        await Scene(here, there, watchers(), watchers() if there else None, gate).listen(room)
    servers = [psutil.Process(pid) for pid in (parsed.pid, parsed.there_pid) if pid]
    before = [Reading.now(server) for server in servers]
    scene = Scene(here, there, at_home, abroad, gate)
    await asyncio.gather(*(scene.listen(room) for room in rooms[: parsed.streams]))
    after = [Reading.now(server) for server in servers]
    return DeliveriesSeen(
        parsed.streams * parsed.tokens,
        sum(later.server - sooner.server for sooner, later in zip(before, after, strict=True)),
        before[0].load_core_busy(after[0]),
        Ages.of(at_home.ages) if at_home else None,
        Ages.of(abroad.ages) if abroad else None,
    )


def leaves(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """Yields what was raised, out of all groups within groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


async def connected(stack: AsyncExitStack, address: str) -> grpc.aio.Channel:
    """Returns a channel that is ready."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    await asyncio.wait_for(channel.channel_ready(), CONNECT_SECONDS)
    return channel


async def main(parsed: argparse.Namespace) -> None:
    """Connects, signs up, puts on the load and prints what was seen as JSON."""
    async with AsyncExitStack() as stack:
        here = await Client.sign_up(await connected(stack, parsed.address))
        there = Client(await connected(stack, parsed.there), here.metadata) if parsed.there else None
        print(msgspec.json.encode(await deliveries(here, there, parsed)).decode())


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
    except* grpc.aio.AioRpcError as failed:
        sys.exit("; ".join({f"{error.code().name}: {error.details()}" for error in leaves(failed)}))
    except* (WrongAnswerError, TimeoutError) as failed:
        sys.exit("; ".join({f"{type(error).__name__}: {error}" for error in leaves(failed)}))

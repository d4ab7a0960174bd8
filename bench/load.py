"""The load: signs up a user of its own, then asks for answers or makes calls, and prints what it saw as JSON.

    python -m bench.load ADDRESS PID answers STREAMS --tokens 500 --repeat 2
    python -m bench.load ADDRESS PID calls IN_FLIGHT --seconds 5

With --rest ADDRESS it does so over REST. PID is the server's, whose CPU and memory are read beside. Every answer is
checked: a server that loses, repeats or mixes up anything is not measured.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field

import grpc
import msgspec
import psutil
import uvloop

from bench.calls import calls
from bench.client import Client, WrongAnswerError
from bench.reading import Reading
from bench.rest_client import RestClient
from bench.seen import AnswersSeen, percentile
from bench.watching import CONNECT_SECONDS
from bench.wire import CallsFailedError

WARM_UP_ANSWERS = 2
SET_UP_CALLS = 32
"""Calls in flight while conversations are made."""

Asker = Client | RestClient


@dataclass(slots=True)
class Crowd:
    """The streams that have text and go on, and the server's largest memory while all of them did."""

    wanted: int
    present: int = 0
    largest: int = 0
    first_texts: list[float] = field(default_factory=list)

    async def watch(self, server: psutil.Process) -> None:
        """Looks at the server's memory twice a second, for ever."""
        while True:
            await asyncio.sleep(0.5)
            if self.present == self.wanted:
                self.largest = max(self.largest, server.memory_info().rss)


async def answers(client: Client, server: psutil.Process, parsed: argparse.Namespace) -> AnswersSeen:
    """Asks on `streams` streams at once, `repeat` times each, every time in a conversation of its own."""
    text = "".join(f" tok{i}" for i in range(parsed.tokens))
    asked = parsed.streams * parsed.repeat
    asker = RestClient(parsed.rest, client.metadata) if parsed.rest else client
    rooms = await bounded(SET_UP_CALLS, [client.new_conversation() for _ in range(asked + WARM_UP_ANSWERS)])
    crowd, gate = Crowd(parsed.streams), asyncio.Semaphore(parsed.opening or parsed.streams)
    for room in rooms[asked:]:
        await listen(asker, room, text, Crowd(1), gate)
    idle_bytes, before = server.memory_info().rss, Reading.now(server)
    watching = asyncio.create_task(crowd.watch(server))
    await asyncio.gather(
        *(in_a_row(asker, rooms[i : asked : parsed.streams], text, crowd, gate) for i in range(parsed.streams))
    )
    after = Reading.now(server)
    watching.cancel()
    return AnswersSeen(
        parsed.tokens * asked,
        after.wall - before.wall,
        percentile(crowd.first_texts, 50),
        percentile(crowd.first_texts, 99),
        after.server - before.server,
        idle_bytes,
        crowd.largest,
        before.load_core_busy(after),
    )


async def in_a_row(asker: Asker, rooms: Iterable[str], text: str, crowd: Crowd, gate: asyncio.Semaphore) -> None:
    """Asks in one conversation after the other."""
    for room in rooms:
        await listen(asker, room, text, crowd, gate)


async def listen(asker: Asker, room: str, text: str, crowd: Crowd, gate: asyncio.Semaphore) -> None:
    """Takes one answer to its end; the gate bounds how many are asked for and not begun."""
    await gate.acquire()
    asked, silent = time.perf_counter(), True
    async for kind in asker.ask(room, text):
        if kind == "started":
            gate.release()
        elif silent:
            silent = False
            crowd.first_texts.append(time.perf_counter() - asked)
            crowd.present += 1
    crowd.present -= 1


async def bounded(most: int, work: list[Awaitable[str]]) -> list[str]:
    """Awaits everything, some at a time, and returns the results in order."""
    gate = asyncio.Semaphore(most)

    async def one(job: Awaitable[str]) -> str:
        async with gate:
            return await job

    return await asyncio.gather(*map(one, work))


async def main(parsed: argparse.Namespace) -> None:
    """Connects, signs up, puts on the load and prints."""
    async with grpc.aio.insecure_channel(parsed.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), CONNECT_SECONDS)
        seen = await parsed.load(await Client.sign_up(channel), psutil.Process(parsed.pid), parsed)
    print(msgspec.json.encode(seen).decode())


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.load")
    parser.add_argument("address")
    parser.add_argument("pid", type=int)
    loads = parser.add_subparsers(required=True)
    stream = loads.add_parser("answers")
    stream.set_defaults(load=answers)
    stream.add_argument("streams", type=int)
    stream.add_argument("--tokens", type=int, required=True)
    stream.add_argument("--repeat", type=int, default=1)
    stream.add_argument("--opening", type=int, help="how many are asked for at once and not begun (default: all)")
    call = loads.add_parser("calls")
    call.set_defaults(load=calls)
    call.add_argument("in_flight", type=int)
    call.add_argument("--seconds", type=float, required=True)
    for one in (stream, call):
        one.add_argument("--rest", metavar="ADDRESS", help="where the same server listens for REST")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        uvloop.run(main(arguments()))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    except (CallsFailedError, WrongAnswerError, TimeoutError) as error:
        sys.exit(f"{type(error).__name__}: {error}")

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
from dataclasses import dataclass

import grpc
import msgspec
import psutil
import uvloop

from bench.client import ANSWER_SECONDS, Client, WrongAnswerError
from bench.load import SET_UP_CALLS, WARM_UP_ANSWERS, bounded
from bench.reading import Reading
from bench.seen import Ages, DeliveriesSeen
from bench.watching import CONNECT_SECONDS, Replica, Room, Watcher, replica
from chatback.v1.chat_service_pb2 import SendMessageRequest, SendMessageResponse, StreamRunRequest, StreamRunResponse


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
        at_home, abroad = Room(parsed.streams, parsed.tokens), Room(parsed.streams, parsed.tokens)
        return Scene(here, there, at_home, abroad, parsed.watch, asyncio.Semaphore(SET_UP_CALLS))

    count = parsed.streams + WARM_UP_ANSWERS
    conversations = await bounded(SET_UP_CALLS, [client.new_conversation() for _ in range(count)])
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

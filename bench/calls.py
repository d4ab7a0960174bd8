"""The load of unary calls: GetConversation again and again, over gRPC or REST."""

import argparse
import asyncio
from collections.abc import Sequence

import psutil

from bench.client import Client
from bench.http_wire import RepeatedRequest
from bench.reading import Reading
from bench.rest_client import RestClient
from bench.seen import CallsSeen
from bench.wire import GRPC, RepeatedCall
from chatback.v1.conversation_service_pb2 import GetConversationRequest

WARM_UP_SECONDS = 0.5
END_SECONDS = 20.0

PATH = "/chatback.v1.ConversationService/GetConversation"
Repeated = RepeatedCall | RepeatedRequest


async def calls(client: Client, server: psutil.Process, parsed: argparse.Namespace) -> CallsSeen:
    """Keeps `in_flight` calls of GetConversation going for some seconds."""
    repeated = await (over_rest if parsed.rest else over_grpc)(client, parsed)
    ends = [each.done for each in repeated]
    await asyncio.sleep(WARM_UP_SECONDS)
    before, counted = Reading.now(server), made_by(repeated)
    await asyncio.wait(ends, timeout=parsed.seconds, return_when=asyncio.FIRST_EXCEPTION)
    after, made = Reading.now(server), made_by(repeated) - counted
    for each in repeated:
        each.stop()
    await asyncio.wait_for(asyncio.gather(*ends), END_SECONDS)
    return CallsSeen(made, after.wall - before.wall, after.server - before.server, before.load_core_busy(after))


async def over_grpc(client: Client, parsed: argparse.Namespace) -> Sequence[Repeated]:
    """Begins calls on one connection, all in flight there."""
    request = GetConversationRequest(conversation_id=await client.new_conversation())
    response = await client.conversation(request)
    headers = {**GRPC, ":path": PATH, ":authority": parsed.address, **dict(client.metadata)}
    wanted, due = request.SerializeToString(), response.SerializeToString()
    return [await connected(parsed.address, RepeatedCall(headers, wanted, due, parsed.in_flight))]


async def over_rest(client: Client, parsed: argparse.Namespace) -> Sequence[Repeated]:
    """Begins calls on a kept-alive connection each, whose response says what gRPC says."""
    request = GetConversationRequest(conversation_id=await client.new_conversation())
    rest = RestClient(parsed.rest, client.metadata)
    due = await rest.conversation(request, await client.conversation(request))
    wanted = rest.get_conversation(request)
    return [await connected(parsed.rest, RepeatedRequest(wanted, due)) for _ in range(parsed.in_flight)]


async def connected(address: str, repeated: Repeated) -> Repeated:
    """Begins on a connection of its own."""
    host, port = address.split(":")
    await asyncio.get_running_loop().create_connection(lambda: repeated, host, int(port))
    return repeated


def made_by(repeated: Sequence[Repeated]) -> int:
    """Returns how many calls have been answered."""
    return sum(each.count for each in repeated)

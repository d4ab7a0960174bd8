"""The load on Redis: publishes news of 32 events while one replica listens; prints what the server takes as JSON.

    python -m bench.bus_load REDIS_URL SECONDS

Bytes are made once and only counted when they come, so that the server is what is measured.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec
import psutil
import uvloop
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from adapters.redis.client import connect
from adapters.redis.message_codec import encode
from application.ports.event_bus import News
from bench.seen import BusSeen
from domain.run import RunEvent, TextDelta

EVENTS, AT_ONCE = 32, 50
CHANNEL = b"chatback:bench"
READ_BYTES = 1 << 20


def news() -> bytes:
    """Returns a message with one event of each of 32 runs, as an owner sends it after a round."""
    now = datetime.now(UTC)
    return encode(News([RunEvent(uuid7(), uuid7(), 100 + i, 1, now, TextDelta(f" word{i}")) for i in range(EVENTS)]))


def command(*words: bytes) -> bytes:
    """Returns a command, or a message to a subscriber, as both are written on the wire."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to the server's socket, or to its address."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def hear(reader: asyncio.StreamReader, size: int) -> None:
    """Reads until so many bytes have come. Raises EOFError where the server closes before."""
    while size > 0:
        data = await reader.read(READ_BYTES)
        if not data:
            raise EOFError("the server closed the connection")
        size -= len(data)


async def measure(url: str, redis: Redis, seconds: float) -> BusSeen:
    """Publishes 50 messages at a time and waits until the listener has them, for some seconds."""
    payload, server = news(), psutil.Process((await redis.info("server"))["process_id"])
    (listener, ears), (replies, mouth) = await connected(url), await connected(url)
    ears.write(command(b"SUBSCRIBE", CHANNEL))
    await listener.readuntil(b":1\r\n")
    batch = command(b"PUBLISH", CHANNEL, payload) * AT_ONCE
    due = len(command(b"message", CHANNEL, payload)) * AT_ONCE
    began, spent, sent = time.perf_counter(), server.cpu_times(), 0
    while time.perf_counter() - began < seconds:
        mouth.write(batch)
        await asyncio.gather(hear(listener, due), hear(replies, len(b":1\r\n") * AT_ONCE))
        sent += AT_ONCE
    took, now = time.perf_counter() - began, server.cpu_times()
    ears.close()
    mouth.close()
    return BusSeen(sent / took, len(payload), (now.user + now.system - spent.user - spent.system) / sent)


async def main(url: str, seconds: float) -> None:
    """Connects, measures and prints."""
    async with connect(url) as redis:
        print(msgspec.json.encode(await measure(url, redis, seconds)).decode())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2])))

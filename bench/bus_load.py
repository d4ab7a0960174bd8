"""The load on Redis: 20 replicas tell each the next one news of 32 events; prints what the server takes as JSON.

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

EVENTS, REPLICAS = 32, 20
READ_BYTES = 1 << 16


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


async def replica(url: str, channel: bytes, payload: bytes, until: float) -> int:
    """Publishes to a channel and waits for each message to come back on it, for a while; returns how many did."""
    (listener, ears), (replies, mouth) = await connected(url), await connected(url)
    ears.write(command(b"SUBSCRIBE", channel))
    await listener.readuntil(b":1\r\n")
    publish, due = command(b"PUBLISH", channel, payload), len(command(b"message", channel, payload))
    sent = 0
    while time.perf_counter() < until:
        mouth.write(publish)
        await hear(replies, len(b":1\r\n"))
        await hear(listener, due)
        sent += 1
    ears.close()
    mouth.close()
    return sent


async def measure(url: str, redis: Redis, seconds: float) -> BusSeen:
    """Lets all replicas publish for some seconds."""
    payload, server = news(), psutil.Process((await redis.info("server"))["process_id"])
    began, before = time.perf_counter(), server.cpu_times()
    channels = [b"chatback:bench:%d" % number for number in range(REPLICAS)]
    sent = sum(await asyncio.gather(*(replica(url, channel, payload, began + seconds) for channel in channels)))
    took, after = time.perf_counter() - began, server.cpu_times()
    return BusSeen(sent / took, len(payload), (after.user + after.system - before.user - before.system) / sent)


async def main(url: str, seconds: float) -> None:
    """Connects, measures and prints."""
    async with connect(url) as redis:
        print(msgspec.json.encode(await measure(url, redis, seconds)).decode())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2])))

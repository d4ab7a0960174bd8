"""The connections to Redis or Valkey that commands share."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECTIONS = 16
TIMEOUT_SECONDS = 1.0


def connect(url: str) -> Redis:
    """Returns a client for short commands: 16 connections, one second each to get one, to connect and for a reply.

    Nothing is sent twice: a command whose reply was lost may have been carried out. Blocking reads need a client of
    their own. The owner closes it with `aclose()`.
    """
    return Redis.from_pool(
        BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            client_name="chatback",
        )
    )

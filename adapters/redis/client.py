"""The connections to Redis or Valkey: those that commands share, and one to listen on."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECTIONS = 16
TIMEOUT_SECONDS = 1.0


def connect(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Redis:
    """Returns a client for short commands: 16 connections, one second each to get one and to connect.

    A reply is waited for without end: callers set the bound. (The library's own, `socket_timeout`, swallows
    cancellations on Python 3.11, which has asyncio.wait_for do so.) Nothing is sent twice: a command whose reply was
    lost may have been carried out. Whoever listens needs a client of its own. The owner closes it with `aclose()`.
    """
    return Redis.from_pool(
        BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=None,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            client_name="chatback",
        )
    )


def connect_listener(url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Redis:
    """Returns a client for subscriptions, which may take one second to connect and does not reconnect by itself.

    It speaks RESP2, in which messages are read for half the price. The owner closes it with `aclose()`.
    """
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0, supported_errors=()),
        client_name="chatback-listener",
    )

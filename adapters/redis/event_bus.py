"""Messages between replicas over Redis: published to the channel that the addressee listens on."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.backoff import EqualJitterBackoff

from adapters.redis.message_codec import UnknownMessageError, decode, encode
from adapters.redis.outage import NO_ANSWER, Outage
from application.ports.event_bus import BusMessage, EventBus

MUTE_SECONDS = 60.0
LONGEST_PAUSE_AFTER = 8  # failures; past a thousand of them the library's 2**failures is no float any more

_log = logging.getLogger(__name__)


class RedisEventBus(EventBus):
    """Publishes on the connections that other commands use too, and listens on one of its own."""

    def __init__(
        self,
        sending: Redis,
        listening: Redis,
        *,
        timeout_seconds: float = 1.0,
        quiet_seconds: float = 4.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the clients of `connect` and `connect_listener`; their owner closes them, after the last listener.

        `timeout_seconds` bounds a send. A server that was quiet for `quiet_seconds` is asked whether it is there; one
        that is quiet for as long again is taken for dead.
        """
        self._sending = sending
        self._listening = listening
        self._timeout_seconds = timeout_seconds
        self._quiet_seconds = quiet_seconds
        self._monotonic = monotonic
        self._muted_until = 0.0
        self._pauses = EqualJitterBackoff(cap=2.0, base=0.1)
        self._deaf = Outage(
            without="this replica learns of others' events from the database",
            again="this replica is told of others' events",
            monotonic=monotonic,
        )
        self._mute = Outage(
            without="other replicas learn of this one's events from the database",
            again="other replicas are told of this one's events",
            monotonic=monotonic,
        )

    async def send(self, messages: Sequence[tuple[UUID, BusMessage]]) -> None:
        """Sends in one pipeline, once: whether messages that went unanswered have arrived is not known.

        While Redis does not answer, all but one send a second give up at once.
        """
        if not messages or self._mute.excuses():
            return
        pipeline = self._sending.pipeline(transaction=False)
        for replica_id, message in messages:
            pipeline.publish(_channel(replica_id), encode(message))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await pipeline.execute()
        except NO_ANSWER as error:
            self._mute.goes_on(error)
        else:
            self._mute.is_over()

    async def listen(self, replica_id: UUID) -> AsyncGenerator[BusMessage, None]:
        """Subscribes on a connection that is closed with the generator, and made anew after pauses of 0.1 to 2 s."""
        failures = 0
        while True:
            try:
                async with self._listening.pubsub() as pubsub:
                    await self._subscribe(pubsub, _channel(replica_id))
                    failures = 0
                    while True:
                        if (message := self._read(await self._next(pubsub))) is not None:
                            yield message
            except NO_ANSWER as error:
                self._deaf.goes_on(error)
                failures += 1
                await asyncio.sleep(self._pauses.compute(min(failures, LONGEST_PAUSE_AFTER)))

    async def _subscribe(self, pubsub: PubSub, channel: str) -> None:
        async with asyncio.timeout(self._quiet_seconds):
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=None)  # the server's word that messages arrive from now on
        self._deaf.is_over()

    async def _next(self, pubsub: PubSub) -> bytes:
        """Waits for the next message. Raises TimeoutError when the server does not even answer a ping."""
        asked = False
        while True:
            heard = await pubsub.get_message(timeout=self._quiet_seconds)
            if heard is not None and heard["type"] == "message":
                data: bytes = heard["data"]
                return data
            if heard is None and asked:
                raise TimeoutError
            asked = heard is None
            if asked:
                await pubsub.ping()

    def _read(self, payload: bytes) -> BusMessage | None:
        """Returns the message; None for what is none, which a replica of another version may have sent."""
        try:
            return decode(payload)
        except UnknownMessageError:
            if self._monotonic() >= self._muted_until:
                self._muted_until = self._monotonic() + MUTE_SECONDS
                _log.warning("skipped a message of %d bytes that this version does not understand", len(payload))
            return None


def _channel(replica_id: UUID) -> str:
    return f"chatback:replica:{{{replica_id}}}"

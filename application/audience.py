"""Showing what was committed to whoever watches, here and on other replicas."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from uuid import UUID

from application.hub import Hub
from application.ports.event_bus import BusMessage, EventBus, Interest, News
from domain.run import Completed, RunEvent, Started, TextDelta

INTEREST_SECONDS = 15.0
"""How long an owner sends news to a replica that asked for them once."""
CARRIED_LIMIT = 16_384
"""Characters of an event that goes over the bus itself; what is longer is read from the log."""
OUTBOX_LIMIT = 1_000
"""Messages that wait to be sent; when there are more the oldest are lost, and found in the log a second later."""


class Audience:
    """Publishes committed events: to the hub, and over the bus to the replicas that watch the runs."""

    def __init__(self, hub: Hub, bus: EventBus) -> None:
        self.hub = hub
        self._bus = bus
        self._interested: defaultdict[UUID, dict[UUID, float]] = defaultdict(dict)
        self._outbox: deque[tuple[UUID, BusMessage]] = deque(maxlen=OUTBOX_LIMIT)
        self._something = asyncio.Event()

    def publish(self, events: Sequence[RunEvent]) -> None:
        """Shows events of one round of the log. Waits for nobody."""
        self.hub.publish(events)
        if self._interested:
            self._publish_remotely(events)

    def admit(self, interest: Interest) -> None:
        """Has news of these runs sent to a replica from now on, for 15 seconds."""
        until = asyncio.get_running_loop().time() + INTEREST_SECONDS
        for run_id in interest.run_ids:
            self._interested[run_id][interest.replica_id] = until

    def dismiss(self, run_id: UUID) -> None:
        """Forgets who is interested in a run: it has ended, or is made elsewhere."""
        self._interested.pop(run_id, None)

    def dismiss_all(self) -> None:
        """Forgets everybody: this replica makes none of its runs any more."""
        self._interested.clear()

    def post(self, to: UUID, message: BusMessage) -> None:
        """Has a message sent to a replica."""
        self._outbox.append((to, message))
        self._something.set()

    async def tell(self, replica_ids: Sequence[UUID], message: BusMessage) -> None:
        """Sends a message to several replicas before it returns, which takes a second at most."""
        await self._bus.send([(replica_id, message) for replica_id in replica_ids])

    async def deliver(self) -> None:
        """Sends what was posted, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            messages = list(self._outbox)
            self._outbox.clear()
            await self._bus.send(messages)

    def _publish_remotely(self, events: Sequence[RunEvent]) -> None:
        now = asyncio.get_running_loop().time()
        news: defaultdict[UUID, list[RunEvent]] = defaultdict(list)
        for event in events:
            for replica_id in self._whom(event.run_id, now):
                news[replica_id].append(event)
            if event.is_last:
                self.dismiss(event.run_id)
        for replica_id, interesting in news.items():
            self.post(replica_id, _as_news(interesting))

    def _whom(self, run_id: UUID, now: float) -> Sequence[UUID]:
        interested = self._interested.get(run_id)
        if interested is None:
            return ()
        for replica_id in [each for each, until in interested.items() if until < now]:
            del interested[replica_id]
        if not interested:
            self.dismiss(run_id)
        return list(interested)


def _as_news(events: Sequence[RunEvent]) -> News:
    carried = [event for event in events if _is_small(event)]
    if len(carried) == len(events):
        return News(carried)
    return News(carried, [(event.run_id, event.seq) for event in events if not _is_small(event)])


def _is_small(event: RunEvent) -> bool:
    match event.body:
        case TextDelta(text):
            return len(text) <= CARRIED_LIMIT
        case Started() | Completed():
            return False
        case _:
            return True

"""Fan-out of committed events to the watchers in this process."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from uuid import UUID

from domain.errors import Unavailable
from domain.run import RunEvent

QUEUE_LIMIT = 256
"""Events kept for a watcher that is slow to take them; past it the watcher goes back to the log."""


class Subscription:
    """What was committed for one run since its watcher last looked. Bounded."""

    __slots__ = ("_arrived", "_events", "_stopped")

    def __init__(self) -> None:
        self._events: list[RunEvent] = []
        self._stopped: Callable[[], Unavailable] | None = None
        self._arrived: asyncio.Future[None] | None = None

    def put(self, event: RunEvent) -> None:
        """Adds a committed event, or forgets all that are waiting when they are too many."""
        if len(self._events) >= QUEUE_LIMIT:
            self._events.clear()
        self._events.append(event)
        self._wake()

    def stop(self, why: Callable[[], Unavailable]) -> None:
        """Makes the watcher end with this error once it has taken what is there."""
        self._stopped = why
        self._wake()

    async def take(self) -> Sequence[RunEvent]:
        """Waits for events and returns them in order; where some were forgotten there is a gap before the first."""
        while not self._events:
            if self._stopped is not None:
                raise self._stopped()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        taken, self._events = self._events, []
        return taken

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class Hub:
    """Who watches which run here."""

    def __init__(self) -> None:
        self._watching: defaultdict[UUID, list[Subscription]] = defaultdict(list)

    def subscribe(self, run_id: UUID) -> Subscription:
        """Collects the events of a run from this moment on, until `unsubscribe` or the run's last event."""
        subscription = Subscription()
        self._watching[run_id].append(subscription)
        return subscription

    def unsubscribe(self, run_id: UUID, subscription: Subscription) -> None:
        """Forgets the subscription; one that is forgotten already stays so."""
        watchers = self._watching.get(run_id, [])
        if subscription in watchers:
            watchers.remove(subscription)
        if not watchers:
            self._watching.pop(run_id, None)

    def publish(self, events: Sequence[RunEvent]) -> None:
        """Hands events that are in the log to whoever watches their runs."""
        for event in events:
            for subscription in self._watching.get(event.run_id, ()):
                subscription.put(event)
            if event.is_last:
                self._watching.pop(event.run_id, None)

    def stop(self, why: Callable[[], Unavailable]) -> None:
        """Ends every watcher with this error; a cursor lets it go on elsewhere."""
        for watchers in self._watching.values():
            for subscription in watchers:
                subscription.stop(why)

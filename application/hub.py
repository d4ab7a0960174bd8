"""Fan-out of committed events to the watchers in this process."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

from domain.errors import ChatBackError
from domain.run import Run, RunEvent

QUEUE_LIMIT = 64
"""Events kept for a watcher that is slow to take them; past it the watcher goes back to the log."""
QUEUE_CHARACTERS = 32_768
"""Their text, likewise: the event with the whole message is often longer than all that came before it."""


class Subscription:
    """What was committed for one run since its watcher last looked. Bounded. `newest` is the last seq it heard of."""

    __slots__ = ("_arrived", "_characters", "_events", "_stopped", "_woken", "newest")

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self._events: list[RunEvent] = []
        self._characters = 0
        self._woken = False
        self._stopped: Callable[[], ChatBackError] | None = None
        self._arrived: asyncio.Future[None] | None = None

    def put(self, event: RunEvent) -> None:
        """Adds a committed event; where the watcher is slow, too many or too long ones are left to the log."""
        self.newest = max(self.newest, event.seq)
        if not self._is_awaited:
            self._characters += event.characters
            if len(self._events) >= QUEUE_LIMIT or self._characters > QUEUE_CHARACTERS:
                self._events.clear()
                self._characters = event.characters
            if self._characters > QUEUE_CHARACTERS:
                self._characters, self._woken = 0, True
                return
        self._events.append(event)
        self._wake()

    def announce(self) -> None:
        """Says that the log may have more than was ever put here."""
        self._woken = True
        self._wake()

    def stop(self, why: Callable[[], ChatBackError]) -> None:
        """Makes the watcher end with this error once it has taken what is there."""
        self._stopped = why
        self._wake()

    def check(self) -> None:
        """Raises the error that this watcher is to end with, if there is one."""
        if self._stopped is not None:
            raise self._stopped()

    async def take(self) -> Sequence[RunEvent]:
        """Waits for events and returns them in order; where some were forgotten there is a gap before the first.

        Returns none when only the log knows what is new, be it after events that were here.
        """
        while not self._events and not self._woken:
            self.check()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if not self._events:
            self._woken = False
            return ()
        taken, self._events, self._characters = self._events, [], 0
        return taken

    @property
    def _is_awaited(self) -> bool:
        """Says whether the watcher waits, and will take what comes now at once."""
        return self._arrived is not None and not self._arrived.done()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class _Watched:
    """A run that is watched here, and the newest seq that its watchers were told of."""

    __slots__ = ("newest", "subscriptions", "workspace_id")

    def __init__(self, run: Run) -> None:
        self.workspace_id = run.workspace_id
        self.newest = run.last_seq
        self.subscriptions: list[Subscription] = []


class Hub:
    """Who watches which run here."""

    def __init__(self) -> None:
        self._watched: dict[UUID, _Watched] = {}
        self._closed: Callable[[], ChatBackError] | None = None

    @property
    def watched(self) -> Collection[tuple[UUID, UUID]]:
        """The watched runs as (workspace_id, run_id)."""
        return [(watched.workspace_id, run_id) for run_id, watched in self._watched.items()]

    def subscribe(self, run: Run) -> Subscription:
        """Collects the events of a run from this moment on, until `unsubscribe` or the run's last event."""
        watched = self._watched.setdefault(run.run_id, _Watched(run))
        subscription = Subscription(run.last_seq)
        watched.subscriptions.append(subscription)
        if self._closed is not None:
            subscription.stop(self._closed)
        return subscription

    def unsubscribe(self, run_id: UUID, subscription: Subscription) -> None:
        """Forgets the subscription; one that is forgotten already stays so."""
        watched = self._watched.get(run_id)
        if watched is None or subscription not in watched.subscriptions:
            return
        watched.subscriptions.remove(subscription)
        if not watched.subscriptions:
            del self._watched[run_id]

    def publish(self, events: Sequence[RunEvent]) -> None:
        """Hands events that are in the log to whoever watches their runs."""
        for event in events:
            watched = self._watched.get(event.run_id)
            if watched is None:
                continue
            watched.newest = max(watched.newest, event.seq)
            for subscription in watched.subscriptions:
                subscription.put(event)
            if event.is_last:
                del self._watched[event.run_id]

    def announce(self, run_id: UUID, last_seq: int) -> None:
        """Sends the watchers of a run to the log, unless they have been told of everything up to `last_seq`."""
        watched = self._watched.get(run_id)
        if watched is None or watched.newest >= last_seq:
            return
        watched.newest = last_seq
        for subscription in watched.subscriptions:
            subscription.announce()

    def stop(self, why: Callable[[], ChatBackError]) -> None:
        """Ends every watcher with this error; a cursor lets it go on elsewhere."""
        for run_id in list(self._watched):
            self.stop_run(run_id, why)

    def close(self, why: Callable[[], ChatBackError]) -> None:
        """Ends every watcher with this error, and whoever comes later."""
        self._closed = why
        self.stop(why)

    def stop_run(self, run_id: UUID, why: Callable[[], ChatBackError]) -> None:
        """Ends the watchers of one run with this error."""
        watched = self._watched.get(run_id)
        for subscription in watched.subscriptions if watched else ():
            subscription.stop(why)

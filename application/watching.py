"""Showing a run: from a cursor to its last event, out of the log and then live."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from application.hub import Hub, Subscription
from application.ports.run_log import RunLog
from domain.errors import RunNotFound, Unavailable
from domain.run import Run, RunEvent


@dataclass(frozen=True)
class Watching:
    """Follows runs for whoever may see them. What is shown is in the log, and each event is shown once, in order."""

    run_log: RunLog
    hub: Hub

    async def follow(
        self, run: Run, subscription: Subscription, known: Sequence[RunEvent], after_seq: int
    ) -> AsyncGenerator[RunEvent, None]:
        """Yields every event after `after_seq` to the last one, first the `known` ones, then the log, then live.

        The subscription must be older than the newest known event; it ends with this. Raises Unavailable with the
        cursor when this replica can't show more, and RunNotFound when the run has been erased meanwhile.
        """
        events, behind = known, not known
        try:
            while True:
                if behind:
                    events, behind = await self._read(run, after_seq, subscription.newest)
                for event in events:
                    if event.seq > after_seq + 1:
                        behind = True
                        break
                    if event.seq <= after_seq:
                        continue
                    yield event
                    after_seq = event.seq
                    if event.is_last:
                        return
                if behind:
                    subscription.check()
                else:
                    events = await subscription.take()
                    behind = not events
        except Unavailable as error:
            error.metadata = {**error.metadata, "run_id": str(run.run_id), "last_seq": str(after_seq)}
            raise
        finally:
            self.hub.unsubscribe(run.run_id, subscription)

    async def _read(self, run: Run, after_seq: int, newest: int) -> tuple[Sequence[RunEvent], bool]:
        """Returns the next events of the log, and whether it has more. Raises RunNotFound where some are erased."""
        page = await self.run_log.read(run.workspace_id, run.run_id, after_seq)
        expected = after_seq + 1
        if page.events[0].seq != expected if page.events else newest >= expected:
            raise RunNotFound
        return page.events, page.has_more

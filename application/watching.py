"""Showing a run: from a cursor to its last event, out of the log and then live."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from application.hub import Hub, Subscription
from application.ports.run_log import RunLog
from domain.errors import RunNotFound, Unavailable
from domain.run import Run, RunEvent

READ_LIMIT = 500
"""Events read from the log at a time."""


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
        events, newest = known, run.last_seq
        try:
            while True:
                if not events or events[0].seq > after_seq + 1:
                    newest = max(newest, events[-1].seq) if events else newest
                    events = await self.run_log.read(run.workspace_id, run.run_id, after_seq, READ_LIMIT)
                    if not events and newest > after_seq:
                        raise RunNotFound
                for event in events:
                    if event.seq <= after_seq:
                        continue
                    yield event
                    after_seq = event.seq
                    if event.is_last:
                        return
                if len(events) < READ_LIMIT:
                    events = await subscription.take()
                else:
                    events = ()
        except Unavailable as error:
            error.metadata = {**error.metadata, "run_id": str(run.run_id), "last_seq": str(after_seq)}
            raise
        finally:
            self.hub.unsubscribe(run.run_id, subscription)

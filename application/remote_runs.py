"""Watching runs that other replicas make: their news over the bus, the truth out of the database twice a second."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from uuid import UUID

from application.audience import Audience
from application.ports.event_bus import BusMessage, CancelWanted, EventBus, Interest, News, OrphansLeft
from application.ports.run_log import RunLog, Standing
from application.run_engine import RunEngine
from domain.errors import DatabaseUnavailable, RunNotFound
from domain.run import Run, RunState

RENEW_EVERY = 6
"""Surveys between two calls on an owner to send news: an interest lives 15 seconds, a survey is made twice a second."""


@dataclass
class RemoteRuns:
    """What one replica has to do with the runs of others. One for each replica."""

    engine: RunEngine
    audience: Audience
    run_log: RunLog
    bus: EventBus
    _owners: dict[UUID, UUID] = field(default_factory=dict)
    _surveys: int = 0

    def watch(self, run: Run) -> None:
        """Asks the owner of a run that has not ended for news at once; `survey` asks again from then on."""
        if run.state is RunState.RUNNING:
            self._owners[run.run_id] = run.owner
            self._ask(run.owner, [run.run_id])

    def cancel(self, run: Run) -> None:
        """Tells the owner that the run is marked to be cancelled, so that it need not find out by itself."""
        if run.owner == self.engine.replica_id:
            self.engine.cancel(run.run_id)
        else:
            self.audience.post(run.owner, CancelWanted(run.run_id))

    async def survey(self) -> None:
        """Heals what the bus has lost: one statement for all runs that are watched here or made here.

        Sends watchers to the log where it is ahead of them, finds new owners, ends the watchers of erased runs, and
        cancels the runs of this replica that are marked so. Raises DatabaseUnavailable.
        """
        watched = [key for key in self.audience.hub.watched if not self.engine.makes(key[1])]
        if not watched and not self.engine.running:
            self._owners.clear()
            return
        found = await self.run_log.survey(self.engine.replica_id, watched)
        for run_id in found.to_cancel:
            self.engine.cancel(run_id)
        self._compare([run_id for _, run_id in watched], {each.run_id: each for each in found.standings})

    async def listen(self) -> None:
        """Takes what other replicas send, for ever, under whatever name this replica goes."""
        while True:
            with suppress(DatabaseUnavailable):
                await self.engine.during_term(self._hear)

    async def _hear(self, replica_id: UUID) -> None:
        async with aclosing(self.bus.listen(replica_id)) as messages:
            async for message in messages:
                self._receive(message)

    def _receive(self, message: BusMessage) -> None:
        match message:
            case News():
                self.audience.hub.publish(message.events)
                for run_id, last_seq in message.newest:
                    self.audience.hub.announce(run_id, last_seq)
            case Interest():
                self._admit(message)
            case CancelWanted():
                self.engine.cancel(message.run_id)
            case OrphansLeft():
                self.engine.look_for_orphans.set()

    def _admit(self, interest: Interest) -> None:
        """Takes the interest in runs that are made here, and answers how far they are: news may have been missed."""
        made = [run_id for run_id in interest.run_ids if self.engine.makes(run_id)]
        if made:
            self.audience.admit(Interest(interest.replica_id, made))
            newest = [(run_id, self.engine.last_seq(run_id)) for run_id in made]
            self.audience.post(interest.replica_id, News((), newest))

    def _compare(self, watched: Sequence[UUID], standings: dict[UUID, Standing]) -> None:
        self._surveys += 1
        to_ask: defaultdict[UUID, list[UUID]] = defaultdict(list)
        for run_id in watched:
            standing = standings.get(run_id)
            if standing is None:
                self.audience.hub.stop_run(run_id, RunNotFound)
                continue
            self.audience.hub.announce(run_id, standing.last_seq)
            if self._surveys % RENEW_EVERY == 0 or self._owners.get(run_id) != standing.owner:
                to_ask[standing.owner].append(run_id)
        self._owners = {run_id: standing.owner for run_id, standing in standings.items()}
        for owner, run_ids in to_ask.items():
            self._ask(owner, run_ids)

    def _ask(self, owner: UUID, run_ids: Sequence[UUID]) -> None:
        if owner != self.engine.replica_id:
            self.audience.post(owner, Interest(self.engine.replica_id, run_ids))

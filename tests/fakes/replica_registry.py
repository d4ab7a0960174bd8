"""Leases in memory, by the clock of the fake database."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from application.ports.replica_registry import ReplicaRegistry
from domain.conversation import Message
from domain.errors import DatabaseUnavailable, ReplicaDraining, ReplicaLost
from domain.run import AttemptReset, Run, RunEvent, RunState, TextDelta
from tests.fakes.database import FakeDatabase, Lease

LEASE = timedelta(seconds=10)
UNATTENDED = timedelta(seconds=10)


class FakeReplicaRegistry(ReplicaRegistry):
    """Leases of 10 seconds; the next `unavailable` calls fail."""

    def __init__(self, database: FakeDatabase) -> None:
        self.unavailable = 0
        self._database = database
        self._replicas = database.tables.replicas

    async def join(self, replica_id: UUID) -> None:
        self._answer()
        now = self._database.clock.now()
        known = self._replicas.get(replica_id, Lease(now, now))
        self._replicas[replica_id] = replace(known, until=now + LEASE)

    async def renew(self, replica_id: UUID) -> bool:
        self._answer()
        if not self._lives(replica_id):
            return False
        self._replicas[replica_id] = replace(self._replicas[replica_id], until=self._database.clock.now() + LEASE)
        return True

    async def leave(self, replica_id: UUID) -> Sequence[UUID]:
        self._answer()
        lease = self._replicas.get(replica_id)
        if lease and not lease.fenced:
            self._replicas[replica_id] = replace(lease, fenced=True, retired=True)
        return [other for other in self._replicas if self._lives(other) and other != replica_id]

    async def fence(self, replica_id: UUID) -> None:
        self._answer()
        if lease := self._replicas.get(replica_id):
            self._replicas[replica_id] = replace(lease, fenced=True)

    async def fence_expired(self) -> int:
        self._answer()
        now = self._database.clock.now()
        expired = {key: lease for key, lease in self._replicas.items() if not lease.fenced and lease.until < now}
        self._replicas.update({key: replace(lease, fenced=True) for key, lease in expired.items()})
        return len(expired)

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        self._answer()
        if not self._lives(replica_id):
            return []
        runs = sorted(self._database.tables.runs.values(), key=lambda run: run.create_time)
        orphans = [run for run in runs if self._is_orphan(run, replica_id, attended)]
        return [self._adopt(run, replica_id) for run in orphans[:limit]]

    async def forget(self, before: datetime) -> None:
        self._answer()
        owners = {run.owner for run in self._database.tables.runs.values() if run.state is RunState.RUNNING}
        for replica_id, lease in list(self._replicas.items()):
            if lease.fenced and lease.join_time < before and replica_id not in owners:
                del self._replicas[replica_id]

    def _lives(self, replica_id: UUID) -> bool:
        lease = self._replicas.get(replica_id)
        return lease is not None and not lease.fenced and lease.until > self._database.clock.now()

    def _is_orphan(self, run: Run, replica_id: UUID, attended: Collection[UUID]) -> bool:
        since, owner = self._database.tables.owned_since[run.run_id], self._replicas.get(run.owner)
        unattended = run.owner == replica_id and run.run_id not in attended
        if run.state is not RunState.RUNNING:
            return False
        return owner is None or owner.fenced or (unattended and since < self._database.clock.now() - UNATTENDED)

    def _adopt(self, run: Run, replica_id: UUID) -> tuple[Run, Message]:
        tables, owner = self._database.tables, self._replicas.get(run.owner)
        retired = owner is not None and owner.retired
        run = replace(run, owner=replica_id, crashes=run.crashes + (not retired), last_seq=tables.last_seq(run.run_id))
        if not run.given_up():
            run = replace(run, attempt=run.attempt + 1, last_seq=run.last_seq + 1)
            self._reset(run, ReplicaDraining.reason if retired else ReplicaLost.reason)
        tables.runs[run.run_id] = run
        tables.owned_since[run.run_id] = self._database.clock.now()
        return run, self._logged(run)

    def _reset(self, run: Run, reason: str) -> None:
        self._database.tables.events[run.run_id, run.last_seq] = RunEvent(
            run.workspace_id, run.run_id, run.last_seq, run.attempt, self._database.clock.now(), AttemptReset(reason)
        )

    def _logged(self, run: Run) -> Message:
        tables, text = self._database.tables, ""
        for seq in range(1, tables.last_seq(run.run_id) + 1):
            body = tables.events[run.run_id, seq].body
            if isinstance(body, AttemptReset):
                text = ""
            elif isinstance(body, TextDelta):
                text += body.text
        return replace(tables.messages[run.workspace_id, run.message_id], content=text)

    def _answer(self) -> None:
        if self.unavailable:
            self.unavailable -= 1
            raise DatabaseUnavailable

"""Leases in memory, by the clock of the fake database."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from application.ports.replica_registry import ReplicaRegistry
from domain.conversation import Message
from domain.errors import DatabaseUnavailable
from domain.run import AttemptReset, Run, RunState, TextDelta
from tests.fakes.database import FakeDatabase, Lease

LEASE = timedelta(seconds=10)


class FakeReplicaRegistry(ReplicaRegistry):
    """Leases of 10 seconds; the next `unavailable` calls fail."""

    def __init__(self, database: FakeDatabase) -> None:
        self.unavailable = 0
        self._database = database
        self._replicas = database.tables.replicas

    async def join(self, replica_id: UUID) -> None:
        self._answer()
        fenced = replica_id in self._replicas and self._replicas[replica_id].fenced
        self._replicas[replica_id] = Lease(self._database.clock.now() + LEASE, fenced)

    async def renew(self, replica_id: UUID) -> bool:
        self._answer()
        now, lease = self._database.clock.now(), self._replicas.get(replica_id)
        if lease is None or lease.fenced or lease.until <= now:
            return False
        self._replicas[replica_id] = Lease(now + LEASE)
        return True

    async def leave(self, replica_id: UUID) -> None:
        self._answer()
        if lease := self._replicas.get(replica_id):
            self._replicas[replica_id] = replace(lease, fenced=True)

    async def fence_expired(self) -> int:
        self._answer()
        now = self._database.clock.now()
        expired = [key for key, lease in self._replicas.items() if not lease.fenced and lease.until < now]
        for replica_id in expired:
            await self.leave(replica_id)
        return len(expired)

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        self._answer()
        tables = self._database.tables
        running = sorted(
            (run for run in tables.runs.values() if run.state is RunState.RUNNING), key=lambda run: run.create_time
        )
        orphans = [run for run in running if self._is_orphan(run, replica_id, attended)][:limit]
        for run in orphans:
            tables.owners[run.run_id] = replica_id, self._database.clock.now()
        return [(replace(run, last_seq=tables.last_seq(run.run_id)), self._logged(run)) for run in orphans]

    def _is_orphan(self, run: Run, replica_id: UUID, attended: Collection[UUID]) -> bool:
        owner, since = self._database.tables.owners[run.run_id]
        if owner == replica_id and run.run_id not in attended and since < self._database.clock.now() - 3 * LEASE:
            return True
        return owner in self._replicas and self._replicas[owner].fenced

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

"""What must be done now and then, whether anybody calls or not."""

from dataclasses import dataclass
from datetime import timedelta

from application.ports.clock import Clock
from application.ports.replica_registry import ReplicaRegistry
from application.ports.run_log import RunLog
from application.ports.unit_of_work import UnitOfWorkFactory

REQUEST_IDS_KEPT = timedelta(hours=24)
REPLICAS_KEPT = timedelta(hours=24)
UNPACKED = timedelta(hours=1)
"""How long the events of an ended run stay as they were written."""
PACKED_AT_ONCE = 100


@dataclass(frozen=True)
class Housekeeping:
    """Erases what has been deleted and forgets what has expired."""

    unit_of_work: UnitOfWorkFactory
    run_log: RunLog
    replicas: ReplicaRegistry
    clock: Clock

    async def tidy(self) -> None:
        """One round: hidden conversations in which nothing runs, request_ids and replicas older than 24 hours."""
        async with self.unit_of_work() as work:
            await work.conversations.erase_hidden()
            await work.requests.forget_before(self.clock.now() - REQUEST_IDS_KEPT)
            await work.commit()
        await self.replicas.forget(self.clock.now() - REPLICAS_KEPT)

    async def pack(self) -> None:
        """Packs the events of runs that ended more than an hour ago."""
        while await self.run_log.pack(self.clock.now() - UNPACKED, PACKED_AT_ONCE) == PACKED_AT_ONCE:
            pass

"""Which processes are alive, by the database's clock."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.conversation import Message
from domain.run import Run


class ReplicaRegistry(Protocol):
    """Leases of replicas. A replica whose lease ran out is fenced: the log takes nothing from it any more."""

    async def join(self, replica_id: UUID) -> None:
        """Registers this process with a fresh lease."""
        ...

    async def renew(self, replica_id: UUID) -> bool:
        """Extends the lease; False if it is lost."""
        ...

    async def leave(self, replica_id: UUID) -> Sequence[UUID]:
        """Fences this replica by its own wish, so that its runs are taken over at once; returns those that live on."""
        ...

    async def fence(self, replica_id: UUID) -> None:
        """Fences a replica that knows its lease to be lost, after its last batch, as `fence_expired` would later."""
        ...

    async def fence_expired(self) -> int:
        """Fences every replica whose lease has run out, after its last batch; returns how many."""
        ...

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        """Makes this replica the owner of up to `limit` running runs of fenced replicas, oldest first.

        In the same transaction each gets its next attempt and the event `attempt_reset`: REPLICA_DRAINING if its owner
        left, else REPLICA_LOST, which also counts as a crash. The message that comes with it is empty. One that is
        given up (`Run.given_up`) keeps its attempt and gets no event: its message holds the text that the log has.
        Its own runs that are not `attended` count as orphans, as after a crash, when they are older than 10 s: their
        begin was committed though the commit's reply was lost, or their end could not be written. Rows that another
        replica is adopting are skipped. A fenced replica adopts nothing.
        """
        ...

    async def forget(self, before: datetime) -> None:
        """Drops the fenced replicas that joined before the moment and own no running run."""
        ...

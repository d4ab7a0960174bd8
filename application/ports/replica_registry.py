"""Which processes are alive, by the database's clock."""

from collections.abc import Collection, Sequence
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

    async def leave(self, replica_id: UUID) -> None:
        """Fences this replica by its own wish, so that its runs are taken care of at once."""
        ...

    async def fence_expired(self) -> int:
        """Fences every replica whose lease has run out, after its last batch; returns how many."""
        ...

    async def adopt_orphans(
        self, replica_id: UUID, attended: Collection[UUID], limit: int
    ) -> Sequence[tuple[Run, Message]]:
        """Makes this replica the owner of up to `limit` running runs of fenced replicas, oldest first.

        Its own runs that are not `attended` count as orphans when they are older than 30 s: their begin was committed
        though the commit's reply was lost. The message holds the text that the log has for it; rows that another
        replica is adopting are skipped.
        """
        ...

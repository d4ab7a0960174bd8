"""The log of events: the truth about every run."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from domain.run import Ending, RunEvent


class RunLog(Protocol):
    """Appends events in batches under the replica's fence, and reads them back from a cursor.

    Writing again what was written changes nothing, so a batch whose outcome is unknown may be repeated unchanged.
    """

    async def append(self, replica_id: UUID, events: Sequence[RunEvent]) -> bool:
        """Commits the events; False if the replica is fenced, then nothing is written.

        Raises DatabaseUnavailable (outcome unknown: repeat unchanged), or InvalidInput for content it refuses.
        """
        ...

    async def finish(self, replica_id: UUID, ending: Ending) -> bool:
        """Commits last events, final message and run state together, like `append` in all else."""
        ...

    async def read(self, workspace_id: UUID, run_id: UUID, after_seq: int, limit: int) -> Sequence[RunEvent]:
        """Returns up to `limit` events with seq > after_seq, in order. Raises DatabaseUnavailable."""
        ...

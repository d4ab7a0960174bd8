"""The log of events: the truth about every run."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.run import Ending, RunEvent


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events of one run in order; `has_more` says that the log went on behind them when it was read."""

    events: Sequence[RunEvent]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run has come, and which replica makes it or made it."""

    run_id: UUID
    owner: UUID
    last_seq: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a replica wants to know twice a second.

    `standings` are those of the watched runs, without the erased ones. `to_cancel` are runs of the replica's own that
    somebody asked to be cancelled.
    """

    standings: Sequence[Standing]
    to_cancel: Sequence[UUID]


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

    async def read(self, workspace_id: UUID, run_id: UUID, after_seq: int) -> LogPage:
        """Returns the events with seq > after_seq, in order: at most 500, and no more than 64 KiB of text but for one.

        The same events for ever, packed or not. Raises DatabaseUnavailable.
        """
        ...

    async def survey(self, replica_id: UUID, watched: Collection[tuple[UUID, UUID]]) -> Survey:
        """Returns news of the watched runs, each given as (workspace_id, run_id), and of one's own: one statement."""
        ...

    async def pack(self, ended_before: datetime, limit: int) -> int:
        """Packs the logs of up to `limit` runs that ended before the moment; returns how many runs.

        Their events become few bytes that say how to cut the answer's pieces again out of the message's text; the text
        of void attempts is kept with them. Runs that another replica is packing are skipped.
        """
        ...

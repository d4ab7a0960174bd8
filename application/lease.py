"""The right of this process to write, which ends unless it is renewed in time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from application.ports.replica_registry import ReplicaRegistry
from domain.errors import DatabaseUnavailable

RENEWAL_SECONDS = 2.0
RETRY_SECONDS = 0.5
LONGEST_STALL = 20.0
"""A main loop that has not moved for so long is taken for dead: its lease is not renewed any more."""
SILENCE_SECONDS = 5.0
"""After so long without the database a replica cannot promise its watchers anything."""
HELD_SECONDS = 20 / 3
"""Two thirds of a lease: a replica stops itself before others may take over its runs."""

log = structlog.get_logger()


@dataclass
class Lease:
    """What the main loop, which uses the lease, and the thread that renews it know together.

    Times are of the monotonic clock. They are single values that either side reads or sets whole, so nothing is locked.
    """

    monotonic: Callable[[], float] = time.monotonic
    replica_id: UUID | None = None
    lost: bool = False

    def __post_init__(self) -> None:
        self.renewed = self.moved = self.monotonic()

    def begin(self, replica_id: UUID, sent: float) -> None:
        """Takes over a fresh lease that was asked for at the moment `sent`."""
        self.renewed, self.lost, self.replica_id = sent, False, replica_id

    def end(self) -> None:
        """Gives the lease up: it is not renewed any more."""
        self.replica_id = None

    def beat(self) -> None:
        """Says that the main loop moves."""
        self.moved = self.monotonic()

    @property
    def is_over(self) -> bool:
        """Says whether this replica must not write any more."""
        return self.lost or self.age > HELD_SECONDS

    @property
    def is_silent(self) -> bool:
        """Says whether the database has not answered for too long."""
        return self.age > SILENCE_SECONDS

    @property
    def age(self) -> float:
        """Seconds since the last good renewal was sent."""
        return self.monotonic() - self.renewed

    async def renew(self, replicas: ReplicaRegistry) -> float:
        """Renews the lease if there is one and the main loop moves; returns the seconds until it is time again."""
        replica_id, sent = self.replica_id, self.monotonic()
        if replica_id is None or self.lost:
            return RETRY_SECONDS
        if sent - self.moved > LONGEST_STALL:
            log.error("lease.loop_stalled", seconds=round(sent - self.moved, 1))
            return RETRY_SECONDS
        try:
            held = await replicas.renew(replica_id)
        except DatabaseUnavailable:
            return RETRY_SECONDS
        if replica_id == self.replica_id:  # else it was lost meanwhile, and this is about another one
            self.renewed, self.lost = (sent, False) if held else (self.renewed, True)
        return RENEWAL_SECONDS

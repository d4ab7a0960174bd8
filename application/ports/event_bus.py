"""What replicas tell each other at once. Whatever is lost on the way is found in the database within a second."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

from domain.run import RunEvent


@dataclass(frozen=True, slots=True)
class Interest:
    """Somebody at `replica_id` watches these runs: send news of them for the next 15 seconds."""

    replica_id: UUID
    run_ids: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class News:
    """Events that were committed, small ones themselves; of others only that the run's log now goes up to a seq."""

    events: Sequence[RunEvent]
    newest: Sequence[tuple[UUID, int]] = ()


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """A run of yours is marked to be cancelled."""

    run_id: UUID


@dataclass(frozen=True, slots=True)
class OrphansLeft:
    """A replica has left and its runs wait for somebody to take them over."""


BusMessage: TypeAlias = Interest | News | CancelWanted | OrphansLeft


class EventBus(Protocol):
    """Carries messages between replicas, in order while nothing breaks, at most once, perhaps not at all."""

    async def send(self, messages: Sequence[tuple[UUID, BusMessage]]) -> None:
        """Sends each message to a replica, all in one round trip. Takes a second at most; never raises for a loss.

        `News` may hold `TextDelta`, `AttemptReset`, `Failed` and `Cancelled`.
        """
        ...

    def listen(self, replica_id: UUID) -> AsyncGenerator[BusMessage, None]:
        """Yields what is sent to this replica from now on, for ever: a lost connection is made anew."""
        ...

"""A clock that tests set."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

from application.ports.clock import Clock

_VERSION_AND_VARIANT = 0x7000_8000_0000_0000_0000
_made = count(1)


class FakeClock(Clock):
    """Stands still until it is told otherwise; its ids sort in the order they were made in."""

    def __init__(self, now: datetime = datetime(2026, 3, 4, 5, 6, 7, 891_000, UTC)) -> None:
        self.time = now

    def now(self) -> datetime:
        return self.time

    def new_id(self) -> UUID:
        return UUID(int=int(self.time.timestamp() * 1000) << 80 | _VERSION_AND_VARIANT | next(_made))

    def advance(self, **amount: float) -> None:
        """Moves on by an amount given in the words of timedelta; a negative one sets the clock back."""
        self.time += timedelta(**amount)

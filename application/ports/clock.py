"""Time, and the ids that carry it."""

from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Tells the time of this machine."""

    def now(self) -> datetime:
        """Returns the present moment in UTC."""
        ...

    def new_id(self) -> UUID:
        """Returns a fresh UUIDv7 (RFC 9562): it sorts by its time."""
        ...

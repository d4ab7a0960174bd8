"""This machine's clock."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from application.ports.clock import Clock


class SystemClock(Clock):
    """Reads the operating system's clock."""

    def now(self) -> datetime:
        """Returns the present moment in UTC."""
        return datetime.now(UTC)

    def new_id(self) -> UUID:
        """Returns a fresh UUIDv7; ids of one process also sort within a millisecond."""
        return uuid7()

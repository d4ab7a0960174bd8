"""What must be done now and then, whether anybody calls or not."""

from dataclasses import dataclass
from datetime import timedelta

from application.ports.clock import Clock
from application.ports.unit_of_work import UnitOfWorkFactory

REQUEST_IDS_KEPT = timedelta(hours=24)


@dataclass(frozen=True)
class Housekeeping:
    """Erases what has been deleted and forgets what has expired."""

    unit_of_work: UnitOfWorkFactory
    clock: Clock

    async def tidy(self) -> None:
        """One round: hidden conversations in which nothing runs, and request_ids older than 24 hours."""
        async with self.unit_of_work() as work:
            await work.conversations.erase_hidden()
            await work.requests.forget_before(self.clock.now() - REQUEST_IDS_KEPT)
            await work.commit()

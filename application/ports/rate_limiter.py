"""How often a principal may call."""

from typing import Protocol
from uuid import UUID


class RateLimiter(Protocol):
    """A token bucket for each principal, shared by all replicas."""

    async def admit(self, principal: UUID) -> None:
        """Takes one call from the principal's bucket. Raises CallsTooFrequent, with the wait, when it is empty.

        Works on with a bucket of this process alone while the shared store does not answer: never open, never shut.
        """
        ...

"""Passwords, kept so that nobody can read them."""

from typing import Protocol


class PasswordHasher(Protocol):
    """Hashes at a chosen cost, away from the event loop, with bounded waiting."""

    async def hash(self, password: str) -> str:
        """Returns a salted hash. Raises PasswordHashingBusy when too many wait already."""
        ...

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Says whether the password made the hash; None costs the same work and is False.

        Raises PasswordHashingBusy when too many wait already.
        """
        ...

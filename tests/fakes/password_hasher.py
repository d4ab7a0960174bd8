"""Hashes that cost nothing."""

import unicodedata

from application.ports.password_hasher import PasswordHasher
from domain.errors import PasswordHashingBusy


class FakePasswordHasher(PasswordHasher):
    """Keeps passwords readable and counts the work. `busy` makes it refuse."""

    def __init__(self) -> None:
        self.work = 0
        self.busy = False

    async def hash(self, password: str) -> str:
        self._begin()
        return f"{self.work}:{unicodedata.normalize('NFC', password)}"

    async def verify(self, password: str, hashed: str | None) -> bool:
        self._begin()
        salt, colon, secret = (hashed or "").partition(":")
        return bool(salt and colon) and secret == unicodedata.normalize("NFC", password)

    def _begin(self) -> None:
        if self.busy:
            raise PasswordHashingBusy
        self.work += 1

"""How much the large responses may take together, which gRPC keeps until their clients have taken them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from domain.errors import WatcherTooSlow

LARGE_BYTES = 64 << 10
UNDER_WAY_BYTES = 16 << 20
"""It is twice as much memory: gRPC copies what it is given."""
WAITING_BYTES = 8 << 20
WAIT_SECONDS = 5.0


class Room:
    """So many bytes for all, and a quarter of them for any one user; a single response always fits an empty room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of_user: Counter[UUID] = Counter()

    def has_place(self, user_id: UUID, size: int) -> bool:
        """Says whether so many bytes more of this user's may come in."""
        own, total = self._of_user[user_id], self._of_user.total()
        return (not own or own + size <= self._limit // 4) and (not total or total + size <= self._limit)

    @contextmanager
    def taken(self, user_id: UUID, size: int) -> Iterator[None]:
        """Counts them for the block."""
        self._of_user[user_id] += size
        try:
            yield
        finally:
            self._of_user[user_id] -= size
            self._of_user += Counter()  # forgets those who have nothing in it


class LargeResponses:
    """Lets them go on their way while there is room; the others wait for a moment, or give up where many wait."""

    def __init__(self, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._under_way = Room(UNDER_WAY_BYTES)
        self._waiting = Room(WAITING_BYTES)
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def carrying(self, user_id: UUID, size: int) -> AsyncIterator[None]:
        """Counts a response as under way for the block. Raises WatcherTooSlow when too much is, for too long."""
        if not self._under_way.has_place(user_id, size):
            await self._wait(user_id, size)
        try:
            with self._under_way.taken(user_id, size):
                yield
        finally:
            self._freed.set()
            self._freed = asyncio.Event()

    async def _wait(self, user_id: UUID, size: int) -> None:
        if not self._waiting.has_place(user_id, size):
            raise WatcherTooSlow
        try:
            with self._waiting.taken(user_id, size):
                async with asyncio.timeout(self._wait_seconds):
                    while not self._under_way.has_place(user_id, size):
                        await self._freed.wait()
        except TimeoutError:
            raise WatcherTooSlow from None

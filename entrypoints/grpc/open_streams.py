"""The streams that are open on this replica, by who opened them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from domain.errors import StreamsTooMany
from domain.identity import Caller

SLOW_SECONDS = 60.0
"""How long a caller may leave a response untaken."""


class OpenStream:
    """One stream, and whether its caller takes what is shown."""

    __slots__ = ("_closing", "_noted", "_noted_at", "_responses", "_task", "beat", "caller", "is_ending")

    def __init__(self, caller: Caller, task: asyncio.Task[Any]) -> None:
        self.caller = caller
        self.beat = 0
        """Grows by one when a write begins, and by one when it ends: it is odd meanwhile."""
        self.is_ending = False
        self._task = task
        self._responses: AsyncGenerator[Any, None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._noted, self._noted_at = 0, 0.0

    def shows(self, responses: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        """Returns the responses, now known to be shown here."""
        self._responses = responses
        return responses

    def end(self) -> None:
        """Ends it: at once, or after the write that is under way, which no status can overtake.

        Nothing is kept for it any longer but what is being written.
        """
        if not self.beat & 1:
            self._task.cancel()
        elif self._closing is None and self._responses is not None:
            self.is_ending = True
            self._closing = asyncio.create_task(self._responses.aclose())

    async def closed(self) -> None:
        """Returns when the responses are closed."""
        if self._closing is not None:
            await self._closing

    def look(self, now: float, patience: float) -> None:
        """Ends it if the same write has been seen under way for so long."""
        if not self.beat & 1 or self.beat != self._noted:
            self._noted, self._noted_at = self.beat, now
        elif now - self._noted_at >= patience and not self.is_ending:
            self.end()


class OpenStreams:
    """Bounds the streams of each user, ends those of a session, and those that are not read."""

    def __init__(self, limit: int, *, slow_seconds: float = SLOW_SECONDS) -> None:
        self._limit = limit
        self._slow_seconds = slow_seconds
        self._of_user: Counter[UUID] = Counter()
        self._of_session: defaultdict[UUID, set[OpenStream]] = defaultdict(set)

    def __len__(self) -> int:
        """Returns how many are open, over all users."""
        return self._of_user.total()

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[OpenStream]:
        """Counts the stream of the current task for the block. Raises StreamsTooMany."""
        task = asyncio.current_task()
        if task is None or self._of_user[caller.user_id] >= self._limit:
            raise StreamsTooMany(self._limit)
        stream = OpenStream(caller, task)
        self._of_user[caller.user_id] += 1
        self._of_session[caller.session_id].add(stream)
        try:
            yield stream
        finally:
            self._leave(caller, stream)

    def end(self, session_id: UUID) -> None:
        """Ends the streams of a session that has ended."""
        for stream in self._of_session.get(session_id, ()):
            stream.end()

    async def end_slow(self) -> None:
        """Ends the streams whose callers take nothing; to be called every few seconds."""
        now = asyncio.get_running_loop().time()
        for streams in self._of_session.values():
            for stream in streams:
                stream.look(now, self._slow_seconds)

    def _leave(self, caller: Caller, stream: OpenStream) -> None:
        self._of_user[caller.user_id] -= 1
        if not self._of_user[caller.user_id]:
            del self._of_user[caller.user_id]
        self._of_session[caller.session_id].discard(stream)
        if not self._of_session[caller.session_id]:
            del self._of_session[caller.session_id]

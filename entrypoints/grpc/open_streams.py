"""The streams that are open on this replica, by who opened them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from domain.errors import StreamsTooMany
from domain.identity import Caller


class OpenStreams:
    """Bounds the streams of each user, and ends those of a session."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of_user: Counter[UUID] = Counter()
        self._of_session: defaultdict[UUID, set[asyncio.Task[Any]]] = defaultdict(set)

    def __len__(self) -> int:
        """Returns how many are open, over all users."""
        return self._of_user.total()

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[None]:
        """Counts the stream of the current task for the block. Raises StreamsTooMany."""
        task = asyncio.current_task()
        if task is None or self._of_user[caller.user_id] >= self._limit:
            raise StreamsTooMany(self._limit)
        self._of_user[caller.user_id] += 1
        self._of_session[caller.session_id].add(task)
        try:
            yield
        finally:
            self._leave(caller, task)

    def end(self, session_id: UUID) -> None:
        """Cancels the streams of a session that has ended."""
        for task in self._of_session.get(session_id, ()):
            task.cancel()

    def _leave(self, caller: Caller, task: asyncio.Task[Any]) -> None:
        self._of_user[caller.user_id] -= 1
        if not self._of_user[caller.user_id]:
            del self._of_user[caller.user_id]
        self._of_session[caller.session_id].discard(task)
        if not self._of_session[caller.session_id]:
            del self._of_session[caller.session_id]

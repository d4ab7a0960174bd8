"""Doing something once for all who want it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Does its work once for all who ask for it meanwhile; one who gives up does not stop it for the others."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._work())
            self._task.add_done_callback(_retrieve)
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Gives up what is being done."""
        if self._task is not None:
            self._task.cancel()


def _retrieve(done: asyncio.Future[T]) -> None:
    """Keeps asyncio from complaining about a failure that everybody has stopped waiting for."""
    if not done.cancelled():
        done.exception()

"""Ctrl-C as something the event loop hears."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(Exception):  # noqa: N818  # it is none
    """Ctrl-C ended what was being done."""


class CtrlC:
    """Ends what is being done; make one per event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._first: Callable[[], None] | None = None
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._press)

    async def ends(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns what the work returns. Raises Interrupted if Ctrl-C came before."""
        self._task = task = asyncio.create_task(work)
        try:
            return await task
        except asyncio.CancelledError:
            if task.cancelled() and not _is_being_cancelled():
                raise Interrupted from None
            raise
        finally:
            self._task = None

    @contextmanager
    def first(self, action: Callable[[], None]) -> Iterator[None]:
        """Lets the first Ctrl-C within the block do this instead; the second ends the work."""
        self._first = action
        try:
            yield
        finally:
            self._first = None

    def _press(self) -> None:
        action, self._first = self._first, None
        if action is not None:
            action()
        elif self._task is not None:
            self._task.cancel()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""When a running service is to stop, why, and how fast."""

import asyncio
import signal
from collections.abc import Awaitable

import structlog

from entrypoints.errors import ServerError

log = structlog.get_logger()


class Stop:
    """Told by SIGINT, SIGTERM or a task that died; a second signal means at once."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._hurried = asyncio.Event()
        self._death: BaseException | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._asked.is_set():
            self._hurried.set()
        self._asked.set()

    def on_death(self, task: asyncio.Task[None]) -> None:
        """Takes the end of a task that should never end as a reason to stop at once."""
        self._death = task.exception() if not task.cancelled() else None
        if not isinstance(self._death, ServerError):  # its own words are for the end
            log.error("background.died", task=task.get_name(), error=repr(self._death))
        self._hurried.set()
        self._asked.set()

    async def wait(self) -> None:
        """Returns when the service is to stop."""
        await self._asked.wait()

    async def unless_hurried(self, drain: Awaitable[None]) -> None:
        """Awaits the drain, or no longer than to the next signal."""
        draining = asyncio.ensure_future(drain)
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        draining.cancel()

    def check(self) -> None:
        """Raises what made the service stop, if it was no signal."""
        if isinstance(self._death, ServerError):
            raise self._death
        if self._death is not None:
            raise ServerError("a part of the service died; the log says which") from self._death

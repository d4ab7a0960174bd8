"""What runs beside the calls, from the start of the service to its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from domain.errors import Unavailable
from entrypoints.container import Container
from entrypoints.errors import ServerError
from entrypoints.stop import Stop

log = structlog.get_logger()


@asynccontextmanager
async def background(container: Container, child_died: Callable[[], str | None], stop: Stop) -> AsyncIterator[None]:
    """Runs the tasks of the service; one that dies stops the service."""
    engine = container.engine()

    async def watch_children() -> None:
        if line := child_died():
            raise ServerError(line)

    jobs = {
        "log writer": engine.write_log(),
        "lease": _every(3, engine.renew_lease),
        "orphans": _every(2, engine.adopt_orphans),
        "ended sessions": _every(0.5, container.ended().poll),
        "tidying": _every(60, container.housekeeping().tidy),
        "children": _every(1, watch_children),
    }
    tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
    for task in tasks:
        task.add_done_callback(stop.on_death)
    try:
        yield
    finally:
        for task in tasks:
            task.remove_done_callback(stop.on_death)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Repeats an action for ever; a database that is away is no reason to stop."""
    while True:
        try:
            await action()
        except Unavailable as error:
            log.warning("background.unavailable", action=action.__qualname__, reason=error.reason)
        await asyncio.sleep(seconds)

"""What runs beside the calls, from the start of the service to its end."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from application.run_engine import RunEngine
from domain.errors import Unavailable
from entrypoints.container import Container
from entrypoints.errors import ServerError
from entrypoints.lease_thread import renew_lease
from entrypoints.memory import give_back_memory
from entrypoints.stop import Stop

log = structlog.get_logger()


@asynccontextmanager
async def background(container: Container, child_died: Callable[[], str | None], stop: Stop) -> AsyncIterator[None]:
    """Runs the tasks of the service; one that dies stops the service."""
    engine, remote = container.engine(), container.remote()

    async def watch_children() -> None:
        if line := child_died():
            raise ServerError(line)

    jobs = {
        "log writer": engine.write_log(),
        "lease": _every(0.25, engine.check_lease),
        "renewal of the lease": renew_lease(container.lease(), container.database_url()),
        "bus": container.audience().deliver(),
        "news": remote.listen(),
        "survey": _every(0.5, remote.survey),
        "orphans": _look_for_orphans(engine),
        "ended sessions": _every(0.5, container.ended().poll),
        "slow readers": _every(5, container.streams().end_slow),
        "free memory": _every(30, give_back_memory),
        "tidying": _every(60, container.housekeeping().tidy),
        "packing": _every(60, container.housekeeping().pack),
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


async def _look_for_orphans(engine: RunEngine) -> None:
    """Looks every two seconds or so, not in step with other replicas, and at once when one says that it leaves."""
    while True:
        await _once(engine.adopt_orphans)
        with suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(1.5, 2.5)):  # noqa: S311 - no secret hangs on it
                await engine.look_for_orphans.wait()


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Repeats an action for ever."""
    while True:
        await _once(action)
        await asyncio.sleep(seconds)


async def _once(action: Callable[[], Awaitable[None]]) -> None:
    """Does something that can be done later as well: a database that is away is no reason to stop."""
    try:
        await action()
    except Unavailable as error:
        log.warning("background.unavailable", action=action.__qualname__, reason=error.reason)

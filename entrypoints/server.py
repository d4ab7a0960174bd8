"""Builds the service, serves until told to stop, drains, and closes what it opened."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from dependency_injector import providers

from adapters.postgres import keys as stored_keys
from adapters.postgres.pool import Pool, open_pool
from adapters.redis.client import connect
from adapters.security.key_ring import KeyRing, KeyRingError, open_key_ring
from domain.errors import DatabaseUnavailable, Unavailable
from entrypoints.backing_servers import Addresses
from entrypoints.container import Container
from entrypoints.errors import OperatorError
from entrypoints.grpc.auth import AuthServicer
from entrypoints.grpc.chat import ChatServicer
from entrypoints.grpc.conversations import ConversationServicer
from entrypoints.grpc.models import ModelServicer
from entrypoints.grpc.pipeline import Pipeline
from entrypoints.grpc.server import add_health, build_server
from entrypoints.operator import Operator
from entrypoints.settings import Settings

GOODBYE_SECONDS = 2
"""How long streams get to tell their clients that the replica stops."""

log = structlog.get_logger()


class ServerError(OperatorError):
    """Why the service can't be served; one line for the operator."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known once calls are taken."""

    grpc_port: int
    operator: Operator
    operator_is_new: bool


async def serve(
    settings: Settings,
    addresses: Addresses,
    operator: Operator,
    *,
    announce: Callable[[Ready], None],
    child_died: Callable[[], str | None],
) -> None:
    """Serves until SIGINT or SIGTERM. A second signal skips the drain.

    Raises ServerError when the port is taken, the database does not answer, or a part of the service dies.
    """
    stop = _Stop()
    async with AsyncExitStack() as stack:
        container = await _open(settings, addresses, stack)
        accounts, engine = container.accounts(), container.engine()
        is_new = await accounts.ensure_operator(operator.email, operator.password)
        await container.ended().poll()
        server = build_server(
            Pipeline(container.authenticator(), container.limiter(), container.clock(), settings.open_streams),
            auth=AuthServicer(accounts),
            conversations=ConversationServicer(container.conversations()),
            chat=ChatServicer(container.chat()),
            models=ModelServicer(container.catalog()),
            max_request_mb=settings.max_request_mb,
            with_reflection=settings.serves_reflection,
        )
        health = await add_health(server)
        port = _bind(lambda: server.add_insecure_port(f"{settings.grpc_host}:{settings.grpc_port}"), settings)
        async with _background(container, child_died, stop):
            await server.start()
            announce(Ready(port, operator, is_new))
            await stop.wait()
            await health.enter_graceful_shutdown()
            await stop.unless_hurried(engine.drain(settings.drain_seconds))
            await server.stop(GOODBYE_SECONDS)
            await _leave(engine.leave)
    stop.check()


async def _open(settings: Settings, addresses: Addresses, stack: AsyncExitStack) -> Container:
    """Connects to the database and Redis and builds the container over them."""
    try:
        pool = await open_pool(
            addresses.database_url, size=settings.database_pool_size, timeout_seconds=settings.database_timeout_seconds
        )
    except DatabaseUnavailable:
        raise ServerError("the database does not answer; check CHATBACK_DATABASE_URL") from None
    stack.push_async_callback(pool.close)
    redis = connect(addresses.redis_url)
    stack.push_async_callback(redis.aclose)
    keys = await _open_keys(pool, settings)
    container = Container(
        settings=settings, pool=providers.Object(pool), redis=providers.Object(redis), keys=providers.Object(keys)
    )
    stack.callback(container.hasher().close)
    stack.push_async_callback(container.model().close)
    return container


async def _open_keys(pool: Pool, settings: Settings) -> KeyRing:
    secret = settings.secret_key.get_secret_value() if settings.secret_key else None
    try:
        return await open_key_ring(
            secret,
            lambda name, make: stored_keys.load_or_create(pool, name, make),
            lambda name, value: stored_keys.replace(pool, name, value),
        )
    except KeyRingError as error:
        raise ServerError(str(error)) from None


@asynccontextmanager
async def _background(container: Container, child_died: Callable[[], str | None], stop: "_Stop") -> AsyncIterator[None]:
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


async def _leave(leave: Callable[[], Awaitable[None]]) -> None:
    try:
        await leave()
    except Unavailable as error:
        log.warning("replica.left_without_word", reason=error.reason)


def _bind(bind: Callable[[], int], settings: Settings) -> int:
    try:
        return bind()
    except RuntimeError:
        raise ServerError(port_in_use(settings.grpc_host, settings.grpc_port)) from None


def check_port_is_free(host: str, port: int) -> None:
    """Raises ServerError when somebody listens there, before anything is started for nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        raise ServerError(port_in_use(host, port)) from None


def port_in_use(host: str, port: int) -> str:
    """Returns the line about an address that can't be had."""
    return f"can't listen on {host}:{port}: it is in use or not allowed; set CHATBACK_GRPC_HOST, CHATBACK_GRPC_PORT"


class _Stop:
    """Why and how fast the service is to stop."""

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

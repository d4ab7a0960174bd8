"""Builds the service, serves until told to stop, drains, and closes what it opened."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
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
from entrypoints.grpc.server import SERVICES, add_health, build_server
from entrypoints.operator import bootstrap_operator
from entrypoints.rest.answers import Answer
from entrypoints.rest.app import Page, RestApp, files, with_cors
from entrypoints.rest.http_rules import http_rules
from entrypoints.rest.probes import Readiness, alive
from entrypoints.rest.routes import routes_over
from entrypoints.rest.server import RestServer, channel_to, listen, private_address
from entrypoints.rest.transcoder import Transcoder
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
    rest_port: int
    operator: str


async def serve(
    settings: Settings,
    addresses: Addresses,
    *,
    announce: Callable[[Ready], None],
    child_died: Callable[[], str | None],
) -> None:
    """Serves until SIGINT or SIGTERM. A second signal skips the drain.

    Raises ServerError when a port is taken, the database does not answer, or a part of the service dies.
    """
    stop = _Stop()
    async with AsyncExitStack() as stack:
        container = await _open(settings, addresses, stack)
        accounts, engine = container.accounts(), container.engine()
        operator = await bootstrap_operator(settings.data_dir, settings.operator_email, accounts.ensure_operator)
        await container.ended().poll()
        server = build_server(
            Pipeline(
                container.authenticator(),
                container.limiter(),
                container.clock(),
                container.streams(),
                container.telemetry(),
            ),
            auth=AuthServicer(accounts),
            conversations=ConversationServicer(container.conversations()),
            chat=ChatServicer(container.chat()),
            models=ModelServicer(container.catalog()),
            max_request_mb=settings.max_request_mb,
            with_reflection=settings.serves_reflection,
        )
        health = await add_health(server)
        port = _bind(server, settings)
        rest = _rest(settings, container, stack, server)
        async with _background(container, child_died, stop):
            await server.start()
            rest.start(stop.on_death)
            _calm_collector()
            announce(Ready(port, rest.port, operator))
            await stop.wait()
            await health.enter_graceful_shutdown()
            await stop.unless_hurried(engine.drain(settings.drain_seconds))
            await asyncio.gather(server.stop(GOODBYE_SECONDS), rest.stop())
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


def _calm_collector() -> None:
    """Spares what lives as long as the process, and looks for cycles rarely: streams make many objects, few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    try:
        return server.add_insecure_port(f"{settings.grpc_host}:{settings.grpc_port}")
    except RuntimeError:
        raise ServerError(port_in_use("GRPC", settings.grpc_host, settings.grpc_port)) from None


def _rest(settings: Settings, container: Container, stack: AsyncExitStack, server: grpc.aio.Server) -> RestServer:
    """Returns the REST server, which reaches the gRPC server over a unix socket of this process's own."""
    address = stack.enter_context(private_address())
    server.add_insecure_port(address)
    channel = channel_to(address)
    stack.push_async_callback(channel.close)
    transcoder = Transcoder(
        routes_over(channel, http_rules(SERVICES)), container.clock(), settings.max_request_mb << 20
    )
    app = with_cors(RestApp(transcoder, _pages(container), container.clock()), settings.origins)
    try:
        listener = listen(settings.rest_host, settings.serves_rest_on)
    except OSError:
        raise ServerError(port_in_use("REST", settings.rest_host, settings.serves_rest_on)) from None
    stack.callback(listener.close)
    return RestServer(app, listener, trusted_proxies=settings.proxies, grace_seconds=GOODBYE_SECONDS + 1)


def _pages(container: Container) -> dict[str, Page]:
    """Returns what is served beside the API. The service can do without Redis: each replica then limits by itself."""
    engine, pool, telemetry = container.engine(), container.pool(), container.telemetry()
    telemetry.gauge("chatback_runs_running", "Runs that this replica makes.", lambda: engine.running)
    telemetry.gauge("chatback_pool_connections", "Open connections to PostgreSQL.", lambda: pool.size)
    telemetry.gauge("chatback_pool_connections_in_use", "Those of them in use.", lambda: pool.in_use)

    async def takes_runs() -> None:
        engine.check_open()

    async def metrics() -> Answer:
        text, kind = telemetry.exposition()
        return Answer(200, text, kind.encode())

    readiness = Readiness({"database": pool.ping, "replica": takes_runs}, {"redis": container.redis().ping})
    return {"/healthz": alive, "/readyz": readiness.answer, "/metrics": metrics, **files()}


def check_port_is_free(kind: str, host: str, port: int) -> None:
    """Raises ServerError when somebody listens there, before anything is started for nothing."""
    try:
        family, _, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        raise ServerError(port_in_use(kind, host, port)) from None


def port_in_use(kind: str, host: str, port: int) -> str:
    """Returns the line about an address that can't be had; `kind` is GRPC or REST, as in the settings."""
    variables = f"CHATBACK_{kind}_HOST, CHATBACK_{kind}_PORT"
    return f"can't listen on {host}:{port}: it is in use or not allowed; set {variables}"


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

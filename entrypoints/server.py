"""Builds the service, serves until told to stop, drains, and closes what it opened."""

import asyncio
import gc
from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc
import structlog
from dependency_injector import providers

from adapters.postgres import keys as stored_keys
from adapters.postgres.pool import Pool, open_pool
from adapters.redis.client import connect, connect_listener
from adapters.security.key_ring import KeyRing, KeyRingError, open_key_ring
from domain.errors import DatabaseUnavailable
from entrypoints.background import background
from entrypoints.backing_servers import Addresses
from entrypoints.container import Container
from entrypoints.errors import ServerError
from entrypoints.greeting import Ready
from entrypoints.grpc.auth import AuthServicer
from entrypoints.grpc.chat import ChatServicer
from entrypoints.grpc.conversations import ConversationServicer
from entrypoints.grpc.models import ModelServicer
from entrypoints.grpc.pipeline import Pipeline
from entrypoints.grpc.server import SERVICES, add_health, build_server
from entrypoints.listening import port_in_use
from entrypoints.metrics import metrics_page
from entrypoints.operator import bootstrap_operator
from entrypoints.rest.app import Page, RestApp, files, with_cors
from entrypoints.rest.body import Bodies
from entrypoints.rest.http_rules import http_rules
from entrypoints.rest.probes import Readiness, alive
from entrypoints.rest.routes import routes_over
from entrypoints.rest.server import RestServer, channel_to, listen, private_address
from entrypoints.rest.transcoder import Transcoder
from entrypoints.settings import Settings
from entrypoints.stop import Stop
from entrypoints.worker import Worker

GOODBYE_SECONDS = 2
"""How long streams get to tell their clients that the replica stops."""

log = structlog.get_logger()


async def serve(
    settings: Settings,
    addresses: Addresses,
    *,
    announce: Callable[[Ready], None],
    child_died: Callable[[], str | None],
    worker: Worker | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM. A second signal skips the drain. A worker shares its ports with others.

    Raises ServerError when a port is taken, the database does not answer, or a part of the service dies.
    """
    stop = Stop()
    async with AsyncExitStack() as stack:
        container = await _open(settings, addresses, stack)
        accounts, engine = container.accounts(), container.engine()
        operator = ""
        if worker is None or worker.is_first:
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
            shares_port=worker is not None,
        )
        health = await add_health(server)
        port = _bind(server, settings)
        rest = await _rest(settings, container, stack, server, worker)
        async with background(container, child_died, stop):
            await server.start()
            rest.start(stop.on_death)
            _calm_collector()
            announce(Ready(port, rest.port, operator))
            await stop.wait()
            await health.enter_graceful_shutdown()
            await stop.unless_hurried(engine.drain(settings.drain_seconds))
            await engine.hand_over()
            await asyncio.gather(server.stop(GOODBYE_SECONDS), rest.stop())
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
    listener = connect_listener(addresses.redis_url)
    stack.push_async_callback(listener.aclose)
    keys = await _open_keys(pool, settings)
    container = Container(
        settings=settings,
        database_url=addresses.database_url,
        pool=providers.Object(pool),
        redis=providers.Object(redis),
        listener=providers.Object(listener),
        keys=providers.Object(keys),
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


async def _rest(
    settings: Settings, container: Container, stack: AsyncExitStack, server: grpc.aio.Server, worker: Worker | None
) -> RestServer:
    """Returns the REST server, which reaches the gRPC server over a unix socket of this process's own."""
    address = stack.enter_context(private_address(worker.folder if worker else None))
    server.add_insecure_port(address)
    channel = channel_to(address)
    stack.push_async_callback(channel.close)
    bodies = Bodies(settings.max_request_mb << 20)
    transcoder = Transcoder(routes_over(channel, http_rules(SERVICES)), container.clock(), bodies)
    metrics = await stack.enter_async_context(metrics_page(container.telemetry(), worker))
    app = with_cors(RestApp(transcoder, _pages(container, metrics), container.clock()), settings.origins)
    try:
        listener = listen(settings.rest_host, settings.serves_rest_on, shares_port=worker is not None)
    except OSError:
        raise ServerError(port_in_use("REST", settings.rest_host, settings.serves_rest_on)) from None
    stack.callback(listener.close)
    return RestServer(app, listener, trusted_proxies=settings.proxies, grace_seconds=GOODBYE_SECONDS + 1)


def _pages(container: Container, metrics: Page) -> dict[str, Page]:
    """Returns what is served beside the API. The service can do without Redis: each replica then limits by itself."""
    engine, pool, telemetry = container.engine(), container.pool(), container.telemetry()
    telemetry.gauge("chatback_runs_running", "Runs that this replica makes.", lambda: engine.running)
    telemetry.gauge("chatback_pool_connections", "Open connections to PostgreSQL.", lambda: pool.size)
    telemetry.gauge("chatback_pool_connections_in_use", "Those of them in use.", lambda: pool.in_use)

    async def takes_runs() -> None:
        engine.check_open()

    readiness = Readiness({"database": pool.ping, "replica": takes_runs}, {"redis": container.redis().ping})
    return {"/healthz": alive, "/readyz": readiness.answer, "/metrics": metrics, **files()}

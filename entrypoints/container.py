"""Which adapter serves which port: the only module that names both."""

from datetime import timedelta

from dependency_injector import providers
from dependency_injector.containers import DeclarativeContainer
from redis.asyncio import Redis

from adapters.extractive.chat_model import ExtractiveChatModel
from adapters.openai.chat_model import OpenAIChatModel
from adapters.postgres.pool import Pool
from adapters.postgres.replica_registry import PostgresReplicaRegistry
from adapters.postgres.run_log import PostgresRunLog
from adapters.postgres.unit_of_work import PostgresUnitOfWorkFactory
from adapters.prometheus.telemetry import PrometheusTelemetry
from adapters.redis.event_bus import RedisEventBus
from adapters.redis.rate_limiter import RedisRateLimiter
from adapters.security.clock import SystemClock
from adapters.security.key_ring import KeyRing
from adapters.security.password_hasher import BcryptPasswordHasher
from adapters.security.token_signer import JwtTokenSigner
from application.accounts import Accounts
from application.audience import Audience
from application.authentication import Authenticator, EndedSessions
from application.chat import Chat
from application.conversations import Conversations
from application.generation import Generator
from application.housekeeping import Housekeeping
from application.hub import Hub
from application.lease import Lease
from application.ports.chat_model import ChatModel
from application.remote_runs import RemoteRuns
from application.run_engine import RunEngine
from application.watching import Watching
from domain.model import Model, ModelCatalog
from entrypoints.grpc.open_streams import OpenStreams
from entrypoints.settings import Settings


def chat_model(settings: Settings) -> ChatModel:
    """Returns the configured endpoint's adapter, or the built-in model where none is configured."""
    if not settings.uses_openai:
        return ExtractiveChatModel()
    key = settings.openai_api_key
    return OpenAIChatModel(
        api_key=key.get_secret_value() if key else None,
        base_url=settings.openai_base_url,
        connect_seconds=settings.model_connect_seconds,
        first_token_seconds=settings.model_first_token_seconds,
        gap_seconds=settings.model_gap_seconds,
    )


def model_catalog(settings: Settings) -> ModelCatalog:
    """Returns the models that messages may name, the default first."""
    names = settings.chat_models if settings.uses_openai else ("extractive",)
    return ModelCatalog(
        [Model(name, settings.context_tokens, is_default=not place) for place, name in enumerate(names)]
    )


class Container(DeclarativeContainer):
    """One object of each kind for the process. `settings` and the opened connections come from the server."""

    settings = providers.Dependency(instance_of=Settings)
    database_url = providers.Dependency(instance_of=str)
    pool = providers.Dependency(instance_of=Pool)
    redis = providers.Dependency(instance_of=Redis)
    listener = providers.Dependency(instance_of=Redis)
    keys = providers.Dependency(instance_of=KeyRing)

    clock = providers.Singleton(SystemClock)
    unit_of_work = providers.Singleton(PostgresUnitOfWorkFactory, pool)
    run_log = providers.Singleton(PostgresRunLog, pool)
    replicas = providers.Singleton(PostgresReplicaRegistry, pool)
    limiter = providers.Singleton(
        RedisRateLimiter, redis, per_second=settings.provided.calls_per_second, burst=settings.provided.calls_burst
    )
    hasher = providers.Singleton(
        BcryptPasswordHasher, keys.provided.password_pepper, cost=settings.provided.password_hash_cost
    )
    signer = providers.Singleton(JwtTokenSigner, keys)
    model = providers.Singleton(chat_model, settings)
    catalog = providers.Singleton(model_catalog, settings)

    telemetry = providers.Singleton(PrometheusTelemetry)
    hub = providers.Singleton(Hub)
    bus = providers.Singleton(RedisEventBus, redis, listener)
    audience = providers.Singleton(Audience, hub=hub, bus=bus)
    lease = providers.Singleton(Lease)
    generator = providers.Singleton(
        Generator, model=model, catalog=catalog, unit_of_work=unit_of_work, clock=clock, telemetry=telemetry
    )
    engine = providers.Singleton(
        RunEngine,
        generator=generator,
        run_log=run_log,
        replicas=replicas,
        audience=audience,
        clock=clock,
        lease=lease,
        telemetry=telemetry,
    )
    remote = providers.Singleton(RemoteRuns, engine=engine, audience=audience, run_log=run_log, bus=bus)
    access_lifetime = providers.Singleton(timedelta, minutes=settings.provided.access_token_minutes)
    refresh_lifetime = providers.Singleton(timedelta, days=settings.provided.refresh_token_days)
    streams = providers.Singleton(OpenStreams, settings.provided.open_streams)
    ended = providers.Singleton(
        EndedSessions,
        unit_of_work=unit_of_work,
        clock=clock,
        access_lifetime=access_lifetime,
        on_end=streams.provided.end,
    )
    authenticator = providers.Singleton(Authenticator, signer=signer, ended=ended, clock=clock)
    accounts = providers.Singleton(
        Accounts,
        unit_of_work=unit_of_work,
        hasher=hasher,
        signer=signer,
        clock=clock,
        ended=ended,
        registration_open=settings.provided.opens_registration,
        access_lifetime=access_lifetime,
        refresh_lifetime=refresh_lifetime,
    )
    conversations = providers.Singleton(
        Conversations, unit_of_work=unit_of_work, remote=remote, signer=signer, clock=clock
    )
    watching = providers.Singleton(Watching, run_log=run_log, hub=hub)
    chat = providers.Singleton(
        Chat,
        unit_of_work=unit_of_work,
        engine=engine,
        remote=remote,
        watching=watching,
        hub=hub,
        catalog=catalog,
        clock=clock,
    )
    housekeeping = providers.Singleton(
        Housekeeping, unit_of_work=unit_of_work, run_log=run_log, replicas=replicas, clock=clock
    )

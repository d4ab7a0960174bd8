"""Every port has its adapter, and every object can be built from what the server opens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dependency_injector import providers
from pydantic import SecretStr
from redis.asyncio import Redis

from adapters.extractive.chat_model import ExtractiveChatModel
from adapters.openai.chat_model import OpenAIChatModel
from adapters.postgres.pool import Pool
from adapters.security.key_ring import KeyRing
from entrypoints.container import Container, chat_model, model_catalog
from entrypoints.settings import Environment, Settings

OPENED = {"settings", "database_url", "pool", "redis", "listener", "keys"}
KEYS = KeyRing(Ed25519PrivateKey.generate(), b"p" * 32, b"r" * 32, b"c" * 32)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return Settings(environment=Environment.DEVELOPMENT)


@pytest.fixture
def container(settings: Settings) -> Iterator[Container]:
    """A container over connections that lead nowhere."""
    container = Container(
        settings=settings,
        database_url="postgresql://127.0.0.1:1/nowhere",
        pool=providers.Object(object.__new__(Pool)),
        redis=providers.Object(Redis()),
        listener=providers.Object(Redis()),
        keys=providers.Object(KEYS),
    )
    yield container
    container.hasher().close()


@pytest.mark.parametrize("name", sorted(Container.providers.keys() - OPENED))
async def test_every_object_is_built_once(container: Container, name: str) -> None:
    assert container.providers[name]() is container.providers[name]()


async def test_a_session_that_ends_is_refused_by_whoever_checks_tokens(container: Container) -> None:
    assert container.accounts().ended is container.authenticator().ended


async def test_what_the_engine_publishes_is_what_callers_watch(container: Container) -> None:
    hubs = container.hub(), container.chat().hub, container.watching().hub, container.engine().audience.hub
    assert len({id(hub) for hub in hubs}) == 1


async def test_who_cancels_runs_speaks_to_the_engine_that_makes_them(container: Container) -> None:
    assert container.chat().engine is container.engine() is container.remote().engine
    assert container.chat().remote is container.remote() is container.conversations().remote


async def test_what_is_posted_to_other_replicas_is_delivered(container: Container) -> None:
    assert container.audience() is container.engine().audience is container.remote().audience


async def test_the_lease_that_is_renewed_is_the_engine_s(container: Container) -> None:
    assert container.lease() is container.engine().lease


async def test_without_an_endpoint_the_built_in_model_answers(settings: Settings) -> None:
    assert isinstance(chat_model(settings), ExtractiveChatModel)
    assert [model.name for model in model_catalog(settings).models] == ["extractive"]


@pytest.mark.parametrize(
    "endpoint", [{"openai_base_url": "http://127.0.0.1:1/v1"}, {"openai_api_key": SecretStr("key")}]
)
async def test_an_endpoint_s_model_answers(settings: Settings, endpoint: dict[str, object]) -> None:
    model = chat_model(settings.model_copy(update=endpoint))
    assert isinstance(model, OpenAIChatModel)
    await model.close()


def test_the_first_configured_model_is_the_default(settings: Settings) -> None:
    configured = settings.model_copy(update={"openai_base_url": "http://127.0.0.1:1/v1", "chat_model": "small, large"})
    models = model_catalog(configured).models
    assert [(model.name, model.is_default) for model in models] == [("small", True), ("large", False)]

"""One running service for most tests, with a scripted model behind it; tests that break things start their own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from tests.e2e.caller import Client, Person, sign_up
from tests.e2e.service import Service, running
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

CONTEXT_TOKENS = 2048


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as a first start and a stop leave it; never used itself, as making one takes seconds."""
    folder = tmp_path_factory.mktemp("template") / "data"
    with running(folder):
        pass
    return folder


@pytest.fixture
def data_dir(template: Path, tmp_path: Path) -> Path:
    """A data folder of this test's own."""
    return copied(template, tmp_path / "data")


@pytest.fixture(scope="session")
async def model_server() -> AsyncIterator[OpenAIEndpoint]:
    """The model behind the shared service."""
    async with OpenAIEndpoint() as serving:
        yield serving


@pytest.fixture
def endpoint(model_server: OpenAIEndpoint) -> OpenAIEndpoint:
    """The model behind the shared service, as if nobody had scripted or called it yet."""
    model_server.script(answer("Hello", " world"))
    model_server.requests.clear()
    return model_server


@pytest.fixture(scope="session")
def service(
    template: Path, tmp_path_factory: pytest.TempPathFactory, model_server: OpenAIEndpoint
) -> Iterator[Service]:
    """The service that tests share. At the end none of them may have made it fail where it should not."""
    folder = copied(template, tmp_path_factory.mktemp("shared") / "data")
    with running(
        folder,
        openai_base_url=model_server.base_url,
        chat_model="model-1,model-2",
        context_tokens=CONTEXT_TOKENS,
        model_first_token_seconds=1.5,
        model_gap_seconds=1.5,
    ) as started:
        yield started
    assert "Traceback" not in started.said
    assert "call.broken" not in started.said


@pytest.fixture(scope="session")
def production(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the defaults of production, on a data folder that was in development before."""
    folder = copied(template, tmp_path_factory.mktemp("production") / "data")
    with running(folder, environment="production", secret_key="0123456789abcdef0123456789abcdef") as started:
        yield started


@pytest.fixture(scope="session")
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the shared service."""
    async with grpc.aio.insecure_channel(service.target) as connected:
        yield connected


@pytest.fixture
def nobody(channel: grpc.aio.Channel) -> Client:
    """A caller without a token."""
    return Client(channel)


@pytest.fixture
async def me(channel: grpc.aio.Channel) -> Person:
    """A user of this test's own."""
    return await sign_up(channel)


@pytest.fixture
async def stranger(channel: grpc.aio.Channel) -> Person:
    """Another user."""
    return await sign_up(channel)


def copied(template: Path, target: Path) -> Path:
    """Copies a data folder that no process uses."""
    return Path(shutil.copytree(template, target))

"""The examples of docs/examples, built and run as their readers would."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.caller import PASSWORD, Person
from tests.e2e.service import ROOT, Service, running
from tests.fakes.openai_endpoint import OpenAIEndpoint

SECONDS = 300
NOT_DOWNLOADED = 75
TOOLS = {"python": [], "browser": ["node"], "go": ["go"], "typescript": ["node", "npm"]}


@pytest.fixture(scope="module")
def rest_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def replica(
    service: Service, model_server: OpenAIEndpoint, tmp_path_factory: pytest.TempPathFactory, rest_port: int
) -> Iterator[Service]:
    """The shared service once more, with a REST port that is known."""
    folder = tmp_path_factory.mktemp("examples") / "data"
    with running(folder, **service.urls, openai_base_url=model_server.base_url, rest_port=rest_port) as started:
        yield started


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("language", TOOLS)
async def test_an_example_is_answered(
    replica: Service, endpoint: OpenAIEndpoint, me: Person, rest_port: int, language: str
) -> None:
    if missing := [tool for tool in TOOLS[language] if shutil.which(tool) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        ROOT / "docs" / "examples" / language / "run", "Hi", cwd=Path("/"), env=environment(replica, me, rest_port),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    if process.returncode == NOT_DOWNLOADED:
        pytest.skip(f"what it depends on can't be downloaded: {errors.decode()[-200:]}")
    assert process.returncode == 0, errors.decode()
    assert out.decode().startswith("Hello world\n[")
    assert endpoint.requests[0].body["messages"][-1]["content"] == "Hi"


def environment(replica: Service, me: Person, rest_port: int) -> dict[str, str]:
    return {
        **os.environ,
        "CHATBACK_TARGET": replica.target,
        "CHATBACK_URL": f"http://127.0.0.1:{rest_port}",
        "CHATBACK_EMAIL": me.user.email,
        "CHATBACK_PASSWORD": PASSWORD,
    }

"""The image, built from the working tree."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.container.docker import IMAGE, Container, answers, docker, service
from tests.e2e.service import ROOT


@pytest.fixture(scope="session", autouse=True)
def image() -> str:
    """Builds the image. Without a Docker engine that is an error if containers were asked for, otherwise a skip."""
    if not answers():
        if os.environ.get("CHATBACK_TEST_SERVERS") == "containers":
            pytest.fail("CHATBACK_TEST_SERVERS is containers, but no Docker engine answers")
        pytest.skip("no Docker engine answers")
    docker("build", "--quiet", "--network=host", f"--tag={IMAGE}", str(ROOT))
    return IMAGE


@pytest.fixture(scope="session")
def alone() -> Iterator[Container]:
    """A service that was told nothing but that it is a developer's, locked in as tightly as can be."""
    locks = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    with service(*locks, "--health-interval=1s", environment="development") as started:
        yield started

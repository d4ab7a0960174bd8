"""The PostgreSQL and Redis that tests run on: containers, or the embedded servers; the same tests, both honest.

CHATBACK_TEST_SERVERS chooses: `containers` (an error, never a skip, where no Docker engine answers), `embedded`,
or `auto`, the default: containers where Docker answers and has both images, otherwise embedded.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from entrypoints.embedded import embedded_servers

IMAGES = POSTGRES_IMAGE, REDIS_IMAGE = "postgres:15", "redis:7"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers listen, and what kind they are: `containers` or `embedded`."""

    kind: str
    database_url: str
    redis_url: str


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Runs both servers, empty, until the end of the block."""
    choice = os.environ.get("CHATBACK_TEST_SERVERS", "auto")
    if choice not in ("auto", "containers", "embedded"):
        raise ValueError(f"CHATBACK_TEST_SERVERS is {choice!r}; it may be auto, containers or embedded")
    if choice == "containers" and not _docker("info"):
        raise RuntimeError("CHATBACK_TEST_SERVERS is containers, but no Docker engine answers")
    in_containers = choice == "containers" or (choice == "auto" and _docker("image", "inspect", *IMAGES))
    with _containers() if in_containers else _embedded() as servers:
        yield servers


@asynccontextmanager
async def empty_database(database_url: str) -> AsyncIterator[str]:
    """Makes a database with nothing in it on this server, gives its URL, and drops it, whoever is still connected."""
    name = f"test_{uuid4().hex}"
    await _execute(database_url, f"CREATE DATABASE {name}")
    try:
        yield urlsplit(database_url)._replace(path=f"/{name}").geturl()
    finally:
        await _execute(database_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url, timeout=10, command_timeout=30)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def _embedded() -> Iterator[Servers]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chatback-tests-"))
        urls = stack.enter_context(embedded_servers(Path(folder), postgres=True, valkey=True, say=print))
        if urls.database_url is None or urls.redis_url is None:
            raise RuntimeError("the embedded servers were asked for and gave no URL")
        yield Servers("embedded", urls.database_url, urls.redis_url)


@contextmanager
def _containers() -> Iterator[Servers]:
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer
    from testcontainers.core.config import testcontainers_config

    # The watchdog is one more image to pull; the block below stops what it started.
    testcontainers_config.ryuk_disabled = True
    with PostgresContainer(POSTGRES_IMAGE, driver=None) as postgres, RedisContainer(REDIS_IMAGE) as redis:
        redis_url = f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0"
        yield Servers("containers", postgres.get_connection_url(), redis_url)


def _docker(*words: str) -> bool:
    """Tells whether Docker knows an answer to this."""
    try:
        return subprocess.run(["docker", *words], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False

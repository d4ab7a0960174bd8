"""What all tests share: servers to run on, and no way out to the network or into the developer's own settings."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.servers import Servers, empty_database, running_servers


def pytest_configure() -> None:
    """Forgets the developer's settings and keys, and makes every look-up of a foreign host an error."""
    for name in list(os.environ):
        if name.startswith(("CHATBACK_", "OPENAI_")) and not name.startswith(("CHATBACK_TEST_", "CHATBACK_FAULT_")):
            del os.environ[name]
    sys.addaudithook(_refuse_foreign_hosts)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL and Redis for the whole session; see tests/servers.py for which."""
    with running_servers() as running:
        yield running


@pytest.fixture(scope="session")
def database_url(servers: Servers) -> str:
    """A PostgreSQL server's URL; its database is shared by the session, so most tests want fresh_database_url."""
    return servers.database_url


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """A Redis server's URL, shared by the session: use keys of your own."""
    return servers.redis_url


@pytest.fixture
async def fresh_database_url(database_url: str) -> AsyncIterator[str]:
    """The URL of an empty database of this test's own; a module that shares one calls empty_database itself."""
    async with empty_database(database_url) as url:
        yield url


def _refuse_foreign_hosts(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo" and not _is_local(str(arguments[0])):
        raise RuntimeError(f"a test called out to {arguments[0]}")


def _is_local(host: str) -> bool:
    if host in ("None", "", "localhost"):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False

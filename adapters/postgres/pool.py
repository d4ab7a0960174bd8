"""The pool of connections, and what every connection is told when it is opened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import msgspec

from adapters.postgres.connection import Connection
from adapters.postgres.errors import translated
from domain.errors import DatabaseUnavailable

CONNECT_SECONDS = 5.0
_RELEASE_SECONDS = 1.0

_SESSION = {
    "application_name": "chatback",
    # An owner stopped inside a transaction would otherwise hide its rows from everyone else for ever.
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "3s",
    # The planner overrates walks along a branch, and would compile for 100 ms what runs in one.
    "jit": "off",
}


class Pool:
    """Connections to one database; the waits for a free one and for each answer are bounded."""

    def __init__(self, driver: asyncpg.Pool, timeout_seconds: float) -> None:
        self._driver = driver
        self._timeout_seconds = timeout_seconds

    @property
    def size(self) -> int:
        """How many connections are open."""
        return self._driver.get_size()

    @property
    def in_use(self) -> int:
        """How many of them are lent."""
        return self._driver.get_size() - self._driver.get_idle_size()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lends a connection. Raises DatabaseUnavailable if none is free in time."""
        # A timer is dear where a connection is there already, as it is nearly always.
        patience = None if self._driver.get_idle_size() else self._timeout_seconds
        with translated():
            driver = await self._driver.acquire(timeout=patience)
        try:
            yield Connection(driver)
        finally:
            # The driver drops a connection that it cannot take back; what was done on it stays done.
            with suppress(DatabaseUnavailable), translated():
                await self._driver.release(driver, timeout=_RELEASE_SECONDS)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection for a transaction that is committed at the end of the block, or undone if it raises."""
        async with self.connection() as connection:
            try:
                await connection.run("BEGIN")
                yield connection
                await connection.run("COMMIT")
            finally:
                await connection.roll_back()

    async def ping(self) -> None:
        """Returns if the database answers. Raises DatabaseUnavailable."""
        async with self.connection() as connection:
            await connection.value("SELECT 1")

    async def close(self) -> None:
        """Waits for the connections in use, no longer than one answer may take, and closes all."""
        with suppress(DatabaseUnavailable), translated():
            async with asyncio.timeout(self._timeout_seconds):
                await self._driver.close()


async def open_pool(url: str, *, size: int, timeout_seconds: float) -> Pool:
    """Opens a pool of up to `size` connections. Raises DatabaseUnavailable."""
    driver = asyncpg.create_pool(
        dsn(url),
        min_size=1,
        max_size=size,
        init=_set_codecs,
        reset=_keep,
        timeout=CONNECT_SECONDS,
        # The server gives up first: it does so without costing the connection.
        server_settings=_SESSION | {"statement_timeout": f"{timeout_seconds * 1000:.0f}"},
        command_timeout=timeout_seconds + 1,
        max_cached_statement_lifetime=0,
    )
    with translated():
        await driver
    return Pool(driver, timeout_seconds)


def dsn(url: str) -> str:
    """Returns the URL as the driver wants it: without the driver's name that SQLAlchemy's URLs carry."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest}"


async def _set_codecs(driver: asyncpg.Connection) -> None:
    await driver.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        decoder=msgspec.json.decode,
        encoder=lambda value: msgspec.json.encode(value).decode(),
    )


async def _keep(_driver: asyncpg.Connection) -> None:
    """Saves the round trip of the driver's own reset: no statement here changes the session."""

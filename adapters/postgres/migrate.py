"""Brings the database's schema to the newest revision."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from adapters.postgres.errors import translated
from adapters.postgres.pool import CONNECT_SECONDS, dsn
from domain.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parents[2] / "migrations"
_LOCK = 0x63686174  # "chat": the advisory lock that one migrating process holds
_LOCK_SECONDS = 60.0
_STEP_SECONDS = 3600.0


async def current_and_head(url: str) -> tuple[str | None, str]:
    """Returns the revision of the database (None for an empty one) and the newest one of this program.

    Reads file names only, so that a start on a migrated database does not load alembic.
    """
    async with _connected(url) as connection:
        known = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
        current = await connection.fetchval("SELECT version_num FROM alembic_version") if known else None
    return current, max(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py"))


async def migrate(url: str) -> None:
    """Upgrades to the newest revision; one process does it, the others wait for it. Raises DatabaseUnavailable."""
    from alembic import command

    await _run(url, lambda config: command.upgrade(config, "head"))


async def downgrade(url: str, revision: str) -> None:
    """Goes back to the revision, or to an empty database with "base". Raises DatabaseUnavailable."""
    from alembic import command

    await _run(url, lambda config: command.downgrade(config, revision))


async def _run(url: str, step: Callable[["Config"], None]) -> None:
    from alembic.config import Config
    from sqlalchemy import Connection, NullPool
    from sqlalchemy.ext.asyncio import create_async_engine

    def on_connection(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
        config.attributes["connection"] = connection
        step(config)

    async with _connected(url) as driver:
        await _lock(driver)

        async def lent() -> asyncpg.Connection:
            return driver

        engine = create_async_engine("postgresql+asyncpg://", async_creator=lent, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(on_connection)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    with translated():
        # A step that cannot get its table's lock soon must not hold up everybody else's statements behind it.
        connection = await asyncpg.connect(
            dsn(url),
            timeout=CONNECT_SECONDS,
            command_timeout=_STEP_SECONDS,
            server_settings={"application_name": "chatback", "lock_timeout": "3s"},
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def _lock(connection: asyncpg.Connection) -> None:
    """Waits for the lock by asking again: a session waiting inside a statement would stop concurrent index builds."""
    try:
        async with asyncio.timeout(_LOCK_SECONDS):
            while True:
                if await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                    return
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise DatabaseUnavailable from error

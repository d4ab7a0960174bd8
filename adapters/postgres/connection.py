"""Statements on one connection."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy

from adapters.postgres.errors import translated
from domain.errors import DatabaseUnavailable


class Connection:
    """Runs SQL and raises domain errors alone, as `adapters.postgres.errors` lists them."""

    __slots__ = ("_driver",)

    def __init__(self, driver: PoolConnectionProxy) -> None:
        self._driver = driver

    async def rows(self, sql: str, *arguments: object) -> list[Record]:
        """Returns all rows."""
        with translated():
            return await self._driver.fetch(sql, *arguments)

    async def row(self, sql: str, *arguments: object) -> Record | None:
        """Returns the first row, if there is one."""
        with translated():
            return await self._driver.fetchrow(sql, *arguments)

    async def value(self, sql: str, *arguments: object) -> Any:
        """Returns the first column of the first row, None where there is no row."""
        with translated():
            return await self._driver.fetchval(sql, *arguments)

    async def run(self, sql: str, *arguments: object) -> str:
        """Returns the command tag, such as `UPDATE 1`."""
        with translated():
            return await self._driver.execute(sql, *arguments)

    async def run_for_each(self, sql: str, arguments: Iterable[Sequence[object]]) -> None:
        """Runs the statement once per entry, all in one round trip and all or none."""
        with translated():
            await self._driver.executemany(sql, arguments)

    async def roll_back(self) -> None:
        """Undoes an open transaction, if there is one; that of a lost connection is undone by the server."""
        with suppress(DatabaseUnavailable), translated():
            if self._driver.is_in_transaction():
                await self._driver.execute("ROLLBACK")

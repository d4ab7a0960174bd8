"""PostgreSQL and Valkey that can be stopped, killed and started again, each by itself."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from entrypoints.embedded import embedded_servers


class BackingServer:
    """One of the embedded servers on a data folder of its own: `name` is postgres or valkey."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._running: ExitStack | None = None
        self._process: psutil.Process | None = None

    @property
    def socket(self) -> str:
        """The unix socket on which it listens; another after each start."""
        name = {"postgres": ".s.PGSQL.5432", "valkey": "valkey.sock"}[self.name]
        return str((self._folder / "sockets").resolve() / name)

    @property
    def database_url(self) -> str:
        """How to get at the database without a proxy."""
        return f"postgresql://chatback@/chatback?host={Path(self.socket).parent}&port=5432"

    async def start(self) -> None:
        """Starts it on the data it had, unless it runs."""
        if self._running is None:
            await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """Stops it in an orderly way."""
        if self._running is not None:
            await asyncio.to_thread(self._running.close)
            self._running = None

    async def kill(self) -> None:
        """Kills it with all its children."""
        assert self._process is not None
        family = [self._process, *self._process.children(recursive=True)]
        for process in family:
            process.kill()
        await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _start(self) -> None:
        servers = embedded_servers(
            self._folder, postgres=self.name == "postgres", valkey=self.name == "valkey", say=lambda _: None
        )
        with ExitStack() as stack:
            self._process = psutil.Process(stack.enter_context(servers).children[0].process.pid)
            self._running = stack.pop_all()

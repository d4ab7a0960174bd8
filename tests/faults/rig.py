"""Three replicas of the service on real servers, with a fault proxy on every way between any two."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from tests.e2e.caller import Person, sign_up
from tests.faults.backing import BackingServer
from tests.faults.model import Model
from tests.faults.processes import Replica
from tests.faults.proxy import FaultProxy, to_port

NAMES = ("anna", "bert", "carl")
DRAIN_SECONDS = 1
STARTS_AT_ONCE = 4


class Rig:
    """PostgreSQL, Valkey, the model, and the replicas that all scenarios share; `heal` makes it whole again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = BackingServer("postgres", folder / "postgres")
        self.valkey = BackingServer("valkey", folder / "valkey")
        self.model = Model()
        self.model_proxy = FaultProxy(to_port(lambda: self.model.port))
        self.replicas: Sequence[Replica] = ()
        self._stack = AsyncExitStack()
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(self._stack.enter_async_context(it) for it in (self.postgres, self.valkey)))
            await self._stack.enter_async_context(self.model)
            await self._stack.enter_async_context(self.model_proxy)
            self.replicas = [await self._stack.enter_async_context(self.replica(name)) for name in NAMES]
            await self.heal()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def replica(self, name: str, **settings: object) -> AsyncIterator[Replica]:
        """Gives a replica of this name that is not started yet; at the end it is gone."""
        replica = Replica(name, self.folder / name, self.postgres, self.valkey)
        model_url = f"http://127.0.0.1:{self.model_proxy.port}/v1"
        await replica.open(openai_base_url=model_url, drain_seconds=DRAIN_SECONDS, **settings)
        try:
            yield replica
        finally:
            await replica.close()

    async def start(self, *replicas: Replica) -> None:
        """Starts replicas, a few at once."""

        async def start(replica: Replica) -> None:
            async with self._starts:
                await replica.start()
                await replica.reachable()

        await asyncio.gather(*(start(replica) for replica in replicas))

    async def heal(self) -> None:
        """Ends all faults, and starts what does not run."""
        for proxy in (self.model_proxy, *(each for it in self.replicas for each in (it.database, it.redis, it.front))):
            proxy.heal()
        for replica in self.replicas:
            if replica.runs:
                replica.signal(signal.SIGCONT)
        await asyncio.gather(self.postgres.start(), self.valkey.start())
        await self.start(*(replica for replica in self.replicas if not replica.runs))
        await asyncio.gather(*(replica.reachable() for replica in self.replicas))

    async def person(self) -> Person:
        """Signs somebody new up, whom every replica knows."""
        return await sign_up(self.replicas[0].channel)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """Gives a connection to the database that no fault meets."""
        connection = await asyncpg.connect(self.postgres.database_url, timeout=10, command_timeout=30)
        try:
            yield connection
        finally:
            await connection.close()

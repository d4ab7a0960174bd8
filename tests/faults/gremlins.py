"""Faults that chance picks, each of which ends by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import Random
from typing import TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisIsAway

from application.failpoint import FAILPOINTS
from tests.faults.figures import Figures
from tests.faults.processes import DidNotStartError, Replica
from tests.faults.proxy import FaultProxy
from tests.faults.rig import Rig

Fault: TypeAlias = Callable[[], Awaitable[None]]

LEASE_SECONDS = 10
REST_SECONDS = 6


class Gremlins:
    """Breaks the rig in one way after the other; each fault is counted among the figures."""

    def __init__(self, rig: Rig, random: Random, figures: Figures) -> None:
        self._rig = rig
        self._random = random
        self._figures = figures

    async def plague(self, replica: Replica, over: asyncio.Event) -> None:
        """Breaks one replica, and what leads to it, until it is over; then it works."""
        while not over.is_set():
            proxy = self._random.choice([replica.database, replica.redis, replica.front])
            await self._do(
                {
                    "kill": lambda: self._kill(replica),
                    "stop": lambda: self._stop(replica),
                    "kill at a failpoint": lambda: self._die_at_failpoint(replica),
                    "leave": lambda: self._leave(replica),
                    "cut": lambda: self._cut(proxy),  # noqa: B023 - called before the next turn
                    "cut in the middle": lambda: self._cut_in_the_middle(proxy),  # noqa: B023
                    "lose replies": lambda: self._lose_replies(replica.database),
                    "black hole": lambda: self._blackhole(proxy),  # noqa: B023
                    "refuse": lambda: self._refuse(proxy),  # noqa: B023
                    "slow down": lambda: self._slow_down(proxy),  # noqa: B023
                }
            )

    async def plague_servers(self, over: asyncio.Event) -> None:
        """Breaks what all replicas need until it is over; then it works."""
        while not over.is_set():
            await self._do(
                {
                    "restart PostgreSQL": self._restart_postgres,
                    "restart Valkey": self._restart_valkey,
                    "flush Valkey": self._flush,
                    "cut the model off": lambda: self._cut(self._rig.model_proxy),
                }
            )

    async def _do(self, faults: Mapping[str, Fault]) -> None:
        name = self._random.choice(list(faults))
        self._figures.count(f"chaos: {name}", 1)
        await faults[name]()
        await self._hold(REST_SECONDS)

    async def _hold(self, longest: float) -> None:
        await asyncio.sleep(self._random.uniform(0, longest))

    async def _kill(self, replica: Replica) -> None:
        await replica.kill()
        await self._hold(3)
        await self._start(replica)

    async def _start(self, replica: Replica) -> None:
        """Starts a replica, again and again as a supervisor does while the database is away."""
        while not replica.runs:
            with suppress(DidNotStartError):
                await self._rig.start(replica)

    async def _leave(self, replica: Replica) -> None:
        replica.signal(signal.SIGTERM)
        await replica.ended()
        await self._start(replica)

    async def _stop(self, replica: Replica) -> None:
        replica.signal(signal.SIGSTOP)
        await self._hold(1.5 * LEASE_SECONDS)
        replica.signal(signal.SIGCONT)

    async def _die_at_failpoint(self, replica: Replica) -> None:
        failpoint = self._random.choice(FAILPOINTS)
        replica.arm(failpoint, "kill", self._random.randint(1, 10))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._random.uniform(0, 5)):
                await replica.acted[failpoint].wait()
        await self._kill(replica)

    async def _cut(self, proxy: FaultProxy) -> None:
        proxy.cut()

    async def _cut_in_the_middle(self, proxy: FaultProxy) -> None:
        proxy.cut_after(self._random.randint(1, 10_000))
        await self._hold(2)
        proxy.heal()

    async def _lose_replies(self, proxy: FaultProxy) -> None:
        proxy.lose_replies(times=self._random.randint(1, 5))
        await self._hold(2)
        proxy.heal()

    async def _blackhole(self, proxy: FaultProxy) -> None:
        proxy.blackhole()
        await self._hold(1.5 * LEASE_SECONDS)
        proxy.heal()

    async def _refuse(self, proxy: FaultProxy) -> None:
        proxy.refuse()
        await self._hold(LEASE_SECONDS)
        proxy.heal()

    async def _slow_down(self, proxy: FaultProxy) -> None:
        proxy.latency = self._random.uniform(0, 0.3)
        await self._hold(5)
        proxy.heal()

    async def _restart_postgres(self) -> None:
        await self._rig.postgres.kill()
        await self._hold(2)
        await self._rig.postgres.start()

    async def _restart_valkey(self) -> None:
        await self._rig.valkey.kill()
        await self._hold(2)
        await self._rig.valkey.start()

    async def _flush(self) -> None:
        with suppress(RedisIsAway):
            async with Redis(unix_socket_path=self._rig.valkey.socket) as redis:
                await redis.flushall()

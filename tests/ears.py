"""Listening on an event bus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from uuid import UUID, uuid4

from application.ports.event_bus import BusMessage, CancelWanted, EventBus

PATIENCE = 60.0
"""Seconds for what comes, however busy the machine is."""


class Ear:
    """What a replica hears, without the calls that were to find out whether it listens."""

    def __init__(self, bus: EventBus, replica_id: UUID) -> None:
        self._bus = bus
        self._replica_id = replica_id
        self._call = CancelWanted(uuid4())
        self._heard: asyncio.Queue[BusMessage] = asyncio.Queue()

    async def listen(self) -> None:
        """Hears until it is cancelled."""
        async with aclosing(self._bus.listen(self._replica_id)) as messages:
            async for message in messages:
                self._heard.put_nowait(message)

    async def next(self) -> BusMessage:
        """Waits for the next message."""
        async with asyncio.timeout(PATIENCE):
            while (message := await self._heard.get()) == self._call:
                pass
            return message

    async def awake(self, caller: EventBus) -> None:
        """Waits until messages get through from this end, by sending some."""
        async with asyncio.timeout(PATIENCE):
            while not await self._hears(caller):
                pass

    async def _hears(self, caller: EventBus) -> bool:
        self._call = CancelWanted(uuid4())
        await caller.send([(self._replica_id, self._call)])
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                while await self._heard.get() != self._call:
                    pass
                return True
        return False


@asynccontextmanager
async def listening(bus: EventBus, replica_id: UUID, *, caller: EventBus | None = None) -> AsyncIterator[Ear]:
    """Listens from the beginning of the block, in which messages from the caller (or the bus) arrive, to its end."""
    ear = Ear(bus, replica_id)
    task = asyncio.create_task(ear.listen())
    try:
        await ear.awake(caller or bus)
        yield ear
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

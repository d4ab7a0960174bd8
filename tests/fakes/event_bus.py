"""Messages between replicas in one process."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

from application.ports.event_bus import BusMessage, EventBus


class FakeBusNetwork:
    """What connects the buses of several replicas. While `cut` is set, all messages are lost."""

    def __init__(self) -> None:
        self.cut = False
        self._inboxes: dict[UUID, list[asyncio.Queue[BusMessage]]] = {}

    def open(self, replica_id: UUID) -> asyncio.Queue[BusMessage]:
        """Returns a queue that gets what is sent to this replica from now on."""
        inbox: asyncio.Queue[BusMessage] = asyncio.Queue()
        self._inboxes.setdefault(replica_id, []).append(inbox)
        return inbox

    def close(self, replica_id: UUID, inbox: asyncio.Queue[BusMessage]) -> None:
        """Puts nothing more into this queue."""
        self._inboxes[replica_id].remove(inbox)

    def carry(self, replica_id: UUID, message: BusMessage) -> None:
        """Delivers a message to whoever listens for this replica, unless the network is cut."""
        for inbox in () if self.cut else self._inboxes.get(replica_id, ()):
            inbox.put_nowait(message)


class FakeEventBus(EventBus):
    """One replica's end of the network. `sent` keeps what it sent, also what was lost."""

    def __init__(self, network: FakeBusNetwork | None = None) -> None:
        self.network = network or FakeBusNetwork()
        self.sent: list[tuple[UUID, BusMessage]] = []

    async def send(self, messages: Sequence[tuple[UUID, BusMessage]]) -> None:
        self.sent.extend(messages)
        for replica_id, message in messages:
            self.network.carry(replica_id, message)

    async def listen(self, replica_id: UUID) -> AsyncGenerator[BusMessage, None]:
        inbox = self.network.open(replica_id)
        try:
            while True:
                yield await inbox.get()
        finally:
            self.network.close(replica_id, inbox)

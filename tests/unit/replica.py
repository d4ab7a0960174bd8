"""Processes of the service without their edges: engine and use cases over memory, models and time by hand."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from application.audience import Audience
from application.chat import Chat
from application.conversations import Conversations
from application.generation import Generator
from application.housekeeping import Housekeeping
from application.hub import Hub
from application.lease import Lease
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from application.ports.telemetry import UNWATCHED, Telemetry
from application.remote_runs import RemoteRuns
from application.run_engine import RunEngine
from application.watching import Watching
from domain.conversation import NO_USAGE, Conversation, ConversationDraft, Message, Usage
from domain.model import Model, ModelCatalog
from domain.run import FinishReason, Question, Run, RunEvent, SendOptions, TextDelta
from tests.builders import a_caller
from tests.fakes.database import FakeDatabase
from tests.fakes.event_bus import FakeBusNetwork, FakeEventBus
from tests.fakes.replica_registry import FakeReplicaRegistry
from tests.fakes.run_log import FakeRunLog
from tests.fakes.token_signer import FakeTokenSigner
from tests.fakes.unit_of_work import FakeUnitOfWorkFactory
from tests.unit.waiting import until

CATALOG = ModelCatalog([Model("small", 1_000, is_default=True), Model("large", 128_000, is_default=False)])


class Call:
    """One call of the model: the test says what comes, when, and how it ends."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.closed = False
        self.may_close = asyncio.Event()
        self.may_close.set()
        self._coming: asyncio.Queue[str | Finish | Exception | None] = asyncio.Queue()

    @property
    def unread(self) -> int:
        return self._coming.qsize()

    def say(self, *pieces: str) -> None:
        for piece in pieces:
            self._coming.put_nowait(piece)

    def finish(self, reason: FinishReason = FinishReason.STOP, usage: Usage = NO_USAGE) -> None:
        self._coming.put_nowait(Finish(reason, usage))

    def fail(self, error: Exception) -> None:
        self._coming.put_nowait(error)

    def hang_up(self) -> None:
        """Ends the stream without a word."""
        self._coming.put_nowait(None)

    async def pieces(self) -> AsyncGenerator[str | Finish, None]:
        try:
            while (piece := await self._coming.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            await self.may_close.wait()
            self.closed = True


class ModelByHand(ChatModel):
    """Says what the test makes each call say."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def stream(self, request: ChatRequest) -> AsyncGenerator[str | Finish, None]:
        self.calls.append(Call(request))
        return self.calls[-1].pieces()

    async def close(self) -> None:
        """Has nothing to close."""


class Replica:
    """A process; several may share a database and a network. `caller` is somebody with a conversation.

    The test looks after the lease and surveys other replicas' runs itself, when it wants that to happen.
    """

    def __init__(
        self,
        database: FakeDatabase,
        network: FakeBusNetwork | None = None,
        *,
        registry: FakeReplicaRegistry | None = None,
        telemetry: Telemetry = UNWATCHED,
    ) -> None:
        self.database = database
        self.clock = database.clock
        self.unit_of_work = FakeUnitOfWorkFactory(database)
        self.log = FakeRunLog(database)
        self.registry = registry or FakeReplicaRegistry(database)
        self.bus = FakeEventBus(network)
        self.hub = Hub()
        self.audience = Audience(self.hub, self.bus)
        self.lease = Lease(lambda: self.clock.now().timestamp())
        self.model = ModelByHand()
        generator = Generator(self.model, CATALOG, self.unit_of_work, self.clock, telemetry)
        self.engine = RunEngine(
            generator, self.log, self.registry, self.audience, self.clock, self.lease, telemetry=telemetry
        )
        self.remote = RemoteRuns(self.engine, self.audience, self.log, self.bus)
        self.chat = Chat(
            self.unit_of_work, self.engine, self.remote, Watching(self.log, self.hub), self.hub, CATALOG, self.clock
        )
        self.signer = FakeTokenSigner(self.clock)
        self.conversations = Conversations(self.unit_of_work, self.remote, self.signer, self.clock)
        self.housekeeping = Housekeeping(self.unit_of_work, self.log, self.registry, self.clock)
        self.caller = a_caller()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator["Replica"]:
        """Writes the log and talks to other replicas meanwhile, as one that has joined."""
        jobs = [asyncio.create_task(job) for job in self._jobs()]
        await self.joined()
        try:
            yield self
        finally:
            # As a process dies: nothing is said to anyone, nothing more is written.
            making = [made.task for made in self.engine._generations.values() if made.task]
            for task in (*jobs, *making):
                task.cancel()
            await asyncio.wait([*jobs, *making])

    def _jobs(self) -> Sequence[Coroutine[None, None, None]]:
        return self.engine.write_log(), self.audience.deliver(), self.remote.listen()

    async def beat(self) -> None:
        """Looks after the lease, once."""
        await self.engine.check_lease()
        await self.lease.renew(self.registry)
        await self.engine.check_lease()

    async def fenced(self) -> UUID:
        """Loses the lease, and returns the id after it, once the database knows that."""
        lost = self.engine.replica_id
        await self.registry.leave(lost)
        await self.beat()
        await until(lambda: self.engine.replica_id != lost)
        return await self.joined()

    async def joined(self) -> UUID:
        """Returns the id of this replica once the database knows it."""
        await until(lambda: self.engine.replica_id in self.database.tables.replicas)
        return self.engine.replica_id

    async def conversation(self, title: str = "") -> Conversation:
        return await self.conversations.create(self.caller, ConversationDraft(title), b"")

    async def ask(
        self, conversation: Conversation | None = None, content: str = "Will it rain?", **options: object
    ) -> "Watcher":
        """Sends a message, in a new conversation unless one is given, and returns who watches the answer."""
        conversation = conversation or await self.conversation()
        question = Question(conversation.conversation_id, content, options=SendOptions(**options))  # type: ignore[arg-type]
        return Watcher(await self.chat.send(self.caller, question))

    async def call(self, number: int = 1) -> Call:
        """Returns the first call of the model, or a later one, once there is one."""
        await until(lambda: len(self.model.calls) >= number)
        return self.model.calls[number - 1]

    async def answered(self, *pieces: str) -> "Watcher":
        """Returns the watcher of an answer that is complete, to a question in a new conversation."""
        number = len(self.model.calls) + 1
        watcher = await self.ask()
        call = await self.call(number)
        call.say(*pieces)
        call.finish()
        await watcher.all()
        return watcher

    def run(self, run_id: UUID) -> Run:
        """The run as it is stored."""
        return self.database.tables.runs[run_id]

    def message(self, run_id: UUID) -> Message:
        """The run's message as it is stored."""
        run = self.run(run_id)
        return self.database.tables.messages[run.workspace_id, run.message_id]

    def logged(self, run_id: UUID) -> Sequence[RunEvent]:
        """The run's events as the log has them."""
        stored = self.database.tables.events
        return [stored[key] for key in sorted(key for key in stored if key[0] == run_id)]

    async def has_logged(self, run_id: UUID, events: int) -> None:
        """Returns when the run's log has so many events."""
        await until(lambda: len(self.logged(run_id)) == events)

    async def has_ended(self, run_id: UUID) -> Run:
        """Returns the stored run once it has ended."""
        await until(lambda: self.run(run_id).end_time)
        return self.run(run_id)


class Watcher:
    """Somebody who looks at a stream of events; `seen` is all that was shown."""

    def __init__(self, events: AsyncGenerator[RunEvent, None]) -> None:
        self.seen: list[RunEvent] = []
        self._events = events

    @property
    def run_id(self) -> UUID:
        return self.seen[0].run_id

    @property
    def text(self) -> str:
        return "".join(event.body.text for event in self.seen if isinstance(event.body, TextDelta))

    async def next(self) -> RunEvent:
        self.seen.append(await anext(self._events))
        return self.seen[-1]

    async def all(self) -> Sequence[RunEvent]:
        """Looks until the stream ends."""
        async for event in self._events:
            self.seen.append(event)
        return self.seen

    async def leave(self) -> None:
        await self._events.aclose()

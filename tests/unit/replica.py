"""Processes of the service without their edges: engine and use cases over memory, models and time by hand."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from application.audience import Audience
from application.chat import Chat
from application.conversations import Conversations
from application.generation import Generator
from application.housekeeping import Housekeeping
from application.hub import Hub
from application.lease import Lease
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from application.ports.telemetry import UNWATCHED, Telemetry
from application.ports.unit_of_work import UnitOfWork
from application.remote_runs import RemoteRuns
from application.run_engine import RunEngine
from application.watching import Watching
from domain.conversation import NO_USAGE, Conversation, ConversationDraft, Message, Usage
from domain.errors import DatabaseUnavailable, Unavailable
from domain.identity import Caller
from domain.model import Model, ModelCatalog
from domain.run import AttemptReset, FinishReason, Question, Run, RunEvent, SendOptions, TextDelta
from tests.builders import a_caller, a_conversation, a_message, a_run, a_start, an_answer
from tests.fakes.database import FakeDatabase
from tests.fakes.event_bus import FakeBusNetwork, FakeEventBus
from tests.fakes.replica_registry import FakeReplicaRegistry
from tests.fakes.run_log import FakeRunLog
from tests.fakes.token_signer import FakeTokenSigner
from tests.fakes.unit_of_work import FakeUnitOfWork, FakeUnitOfWorkFactory
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


class Network(FakeBusNetwork):
    """A network of which a test can see who is on it."""

    def listens(self, replica_id: UUID) -> bool:
        return bool(self._inboxes.get(replica_id))


class UnitsOfWork(FakeUnitOfWorkFactory):
    """Opens transactions; the next commits fail, after they were done where `lost_replies` has True for them."""

    def __init__(self, database: FakeDatabase) -> None:
        super().__init__(database)
        self.lost_replies: list[bool] = []

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[UnitOfWork]:
        async with self._database.turn, self.reading():
            yield _UnitOfWork(self._database, self.lost_replies)


class _UnitOfWork(FakeUnitOfWork):
    def __init__(self, database: FakeDatabase, lost_replies: list[bool]) -> None:
        super().__init__(database)
        self._lost_replies = lost_replies

    async def commit(self) -> None:
        if not self._lost_replies:
            return await super().commit()
        if self._lost_replies.pop(0):
            await super().commit()
        raise DatabaseUnavailable


class Replica:
    """A process; several may share a database and a network. `caller` is somebody with a conversation.

    The test looks after the lease and surveys other replicas' runs itself, when it wants that to happen.
    """

    def __init__(
        self,
        database: FakeDatabase,
        network: Network | None = None,
        *,
        registry: FakeReplicaRegistry | None = None,
        telemetry: Telemetry = UNWATCHED,
    ) -> None:
        self.database = database
        self.clock = database.clock
        self.unit_of_work = UnitsOfWork(database)
        self.log = FakeRunLog(database)
        self.registry = registry or FakeReplicaRegistry(database)
        self.network = network or Network()
        self.bus = FakeEventBus(self.network)
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
        """Returns the id of this replica once the database knows it and the bus brings its messages."""
        await until(lambda: self.engine.replica_id in self.database.tables.replicas)
        await until(lambda: self.network.listens(self.engine.replica_id))
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

    async def asked(self) -> "Watcher":
        """Returns the watcher of a run that has begun, after its first event."""
        watcher = await self.ask()
        await watcher.next()
        return watcher

    async def heard(self, *pieces: str) -> "Watcher":
        """Returns the watcher of a run that has begun, whose model has said something that is in the log."""
        number = len(self.model.calls) + 1
        watcher = await self.asked()
        (await self.call(number)).say(*pieces)
        await until(lambda: self.text(watcher.run_id) == "".join(pieces))
        return watcher

    def started(self, parent: Message | None = None, model: str = "small") -> Run:
        """Returns a run that is in the log, and whose making has not had its first step."""
        conversation = a_conversation(self.caller)
        question = a_message(conversation, parent)
        answer = an_answer(conversation, question, model=model)
        run, tables = a_run(conversation, answer, owner=self.engine.replica_id), self.database.tables
        tables.runs[run.run_id] = run
        tables.owned_since[run.run_id] = self.clock.now()
        tables.messages.update({(run.workspace_id, message.message_id): message for message in (question, answer)})
        tables.events[run.run_id, 1] = a_start(run, question.message_id)
        self.engine.start(run, question, answer)
        return run

    async def watch(self, caller: Caller, run_id: UUID, after_seq: int = 0) -> "Watcher":
        """Returns somebody who watches a run here, whichever replica makes it."""
        return Watcher(await self.chat.stream(caller, run_id, after_seq))

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

    def text(self, run_id: UUID) -> str:
        """What stands of the text that is in the log."""
        return text_of(self.logged(run_id))

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
        """What stands of the text that was shown."""
        return text_of(self.seen)

    async def next(self) -> RunEvent:
        self.seen.append(await anext(self._events))
        return self.seen[-1]

    async def all(self) -> Sequence[RunEvent]:
        """Looks until the stream ends."""
        async for event in self._events:
            self.seen.append(event)
        return self.seen

    async def ended_with(self, kind: type[Unavailable]) -> Unavailable:
        """Looks until the stream ends with an error of this kind, and returns that."""
        with pytest.raises(kind) as end:
            await self.all()
        return end.value

    async def leave(self) -> None:
        await self._events.aclose()


def text_of(events: Sequence[RunEvent]) -> str:
    """Joins the text of the events; a reset voids what came before it."""
    text = ""
    for event in events:
        match event.body:
            case AttemptReset():
                text = ""
            case TextDelta(piece):
                text += piece
    return text

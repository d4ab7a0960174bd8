"""Makes answers: every run in a task that the engine owns, whoever comes and goes as a watcher."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import structlog

from application.hub import Hub, Subscription
from application.log_writer import LogWriter, Transcript
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from application.ports.clock import Clock
from application.ports.replica_registry import ReplicaRegistry
from application.ports.run_log import RunLog
from application.ports.unit_of_work import UnitOfWorkFactory
from domain.conversation import NO_USAGE, Message, Usage
from domain.errors import (
    ChatBackError,
    DatabaseUnavailable,
    ModelStreamBroken,
    ReplicaDraining,
    ReplicaFenced,
    ReplicaLost,
    Unavailable,
)
from domain.model import ModelCatalog
from domain.prompt import Turn, build_prompt
from domain.run import Cancelled, Failed, FinishReason, Run, RunEvent, failed, storable

READ_LIMIT = 500
"""Events read from the log at a time."""
ADOPTION_LIMIT = 20
"""Orphaned runs taken in at a time."""

log = structlog.get_logger()

Outcome = FinishReason | Failed | Cancelled
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Generation:
    """One run that this replica makes, and the task that makes it."""

    writer: LogWriter
    transcript: Transcript
    parent_message_id: UUID
    task: asyncio.Task[None] | None = None
    began: bool = False
    listens: bool = True
    stopped_by: Cancelled | Failed | None = None

    def stop(self, why: Cancelled | Failed) -> None:
        """Closes the model's stream, unless the model is through already."""
        if not self.listens or self.stopped_by:
            return
        self.stopped_by = why
        # A task cancelled before its first step never runs: then what it finds written here tells it.
        if self.began and self.task is not None:
            self.task.cancel()

    def verdict(self) -> Cancelled | Failed | None:
        """Returns why the generation was stopped, None if nobody stopped it."""
        return self.stopped_by


@dataclass
class RunEngine:
    """Starts, stops and shows runs. One for each replica."""

    model: ChatModel
    catalog: ModelCatalog
    unit_of_work: UnitOfWorkFactory
    run_log: RunLog
    replicas: ReplicaRegistry
    hub: Hub
    clock: Clock

    def __post_init__(self) -> None:
        self._generations: dict[UUID, Generation] = {}
        self._left: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._writer = self._new_writer()

    @property
    def replica_id(self) -> UUID:
        """Names this process in the log, until it is fenced."""
        return self._writer.replica_id

    @property
    def running(self) -> int:
        """Returns how many runs this replica makes at this moment."""
        return len(self._generations)

    def check_open(self) -> None:
        """Raises ReplicaDraining once no new run is taken."""
        if self._draining:
            raise ReplicaDraining

    def start(self, run: Run, owner: UUID, message: Message, parent_message_id: UUID) -> None:
        """Generates the answer to a run that is in the log with its `started` event.

        Does nothing if this replica was fenced since the run got its owner: then it is an orphan like others.
        """
        if owner != self.replica_id:
            return
        generation = Generation(self._writer, self._writer.open(run, message), parent_message_id)
        self._generations[run.run_id] = generation
        generation.task = asyncio.create_task(self._make(generation), name=f"run {run.run_id}")

    async def finish_even_if_left(self, work: Coroutine[None, None, T]) -> T:
        """Awaits the work; if the caller is cancelled meanwhile the work goes on, so that nothing stays half done."""
        task = asyncio.create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        return await asyncio.shield(task)

    def cancel(self, run_id: UUID) -> None:
        """Stops a run of this replica; others are left alone."""
        if generation := self._generations.get(run_id):
            generation.stop(Cancelled())

    async def wait_ended(self, run_id: UUID) -> None:
        """Returns when this replica does not make the run any more, or after 5 seconds."""
        generation = self._generations.get(run_id)
        if generation and generation.task:
            await asyncio.wait([generation.task], timeout=5)

    async def watch(
        self, run: Run, subscription: Subscription, known: Sequence[RunEvent], after_seq: int
    ) -> AsyncGenerator[RunEvent, None]:
        """Yields every event after `after_seq` to the last one, first the `known` ones, then the log, then live.

        The subscription must be older than the newest known event. Raises Unavailable with the cursor when this
        replica can't show more.
        """
        events: Sequence[RunEvent] = known
        try:
            while True:
                if not events or events[0].seq > after_seq + 1:
                    events = await self.run_log.read(run.workspace_id, run.run_id, after_seq, READ_LIMIT)
                for event in events:
                    if event.seq <= after_seq:
                        continue
                    yield event
                    after_seq = event.seq
                    if event.is_last:
                        return
                if len(events) < READ_LIMIT:
                    events = await subscription.take()
                else:
                    events = ()
        except Unavailable as error:
            error.metadata = {**error.metadata, "run_id": str(run.run_id), "last_seq": str(after_seq)}
            raise

    async def write_log(self) -> None:
        """Writes events for ever; a fenced replica goes on as a new one, without its runs."""
        while True:
            try:
                await self._join()
                await self._writer.run()
            except ReplicaFenced:
                log.warning("replica.fenced", replica_id=str(self.replica_id), runs=self.running)
                self._abandon()
                self._writer = self._new_writer()

    async def renew_lease(self) -> None:
        """Tells the others that this replica lives."""
        if not await self.replicas.renew(self.replica_id):
            self._writer.fence()

    async def adopt_orphans(self) -> None:
        """Ends the runs of replicas that died, with the text that the log has."""
        await self.replicas.fence_expired()
        for run, message in await self.replicas.adopt_orphans(self.replica_id, set(self._generations), ADOPTION_LIMIT):
            outcome = Cancelled() if run.cancel_requested else failed(ReplicaLost())
            await self._writer.finish(self._writer.open(run, message), outcome, NO_USAGE)
            log.warning("run.orphan_ended", run_id=str(run.run_id), last_seq=run.last_seq)

    async def drain(self, seconds: float) -> None:
        """Takes no new runs, gives the running ones `seconds` to end, then ends them with what they have."""
        self._draining = True
        tasks = [generation.task for generation in self._generations.values() if generation.task]
        if tasks:
            log.info("runs.draining", runs=len(tasks), seconds=seconds)
            await asyncio.wait(tasks, timeout=seconds)
        for generation in self._generations.values():
            generation.stop(failed(ReplicaLost()))
        if rest := [task for task in tasks if not task.done()]:
            await asyncio.wait(rest, timeout=5)
        self.hub.stop(ReplicaDraining)

    async def leave(self) -> None:
        """Gives up the lease, so that whatever is left is taken care of at once."""
        await self.replicas.leave(self.replica_id)

    async def _join(self) -> None:
        while True:
            try:
                return await self.replicas.join(self.replica_id)
            except DatabaseUnavailable:
                await asyncio.sleep(1)

    def _new_writer(self) -> LogWriter:
        return LogWriter(self.clock.new_id(), self.run_log, self.hub, self.clock)

    def _abandon(self) -> None:
        """Drops what a fenced replica was doing: whoever adopts the runs goes by the log."""
        for generation in self._generations.values():
            if generation.listens and generation.task is not None:
                generation.task.cancel()
        self.hub.stop(ReplicaFenced)

    async def _make(self, generation: Generation) -> None:
        run_id = generation.transcript.run.run_id
        generation.began = True
        try:
            outcome, usage = await self._generate(generation)
            generation.listens = False
            await generation.writer.finish(generation.transcript, outcome, usage)
        except ReplicaFenced:
            log.warning("run.abandoned", run_id=str(run_id))
        finally:
            self._generations.pop(run_id, None)

    async def _generate(self, generation: Generation) -> tuple[Outcome, Usage]:
        """Returns how the answer ended. What goes wrong is an outcome, too: watchers are told of it in the log."""
        if stopped := generation.verdict():
            return stopped, NO_USAGE
        try:
            return await self._listen(generation)
        except asyncio.CancelledError:
            stopped = generation.verdict()
            if stopped is None:
                raise
            _uncancel()
            return stopped, NO_USAGE
        except ReplicaFenced:
            raise
        except ChatBackError as error:
            return failed(error), NO_USAGE
        except Exception:
            incident = str(self.clock.new_id())
            log.exception("run.broken", run_id=str(generation.transcript.run.run_id), incident_id=incident)
            return Failed("INTERNAL", f"internal error, incident {incident}"), NO_USAGE

    async def _listen(self, generation: Generation) -> tuple[Outcome, Usage]:
        transcript, writer = generation.transcript, generation.writer
        request = await self._request(transcript.run, generation.parent_message_id)
        async with aclosing(self.model.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return piece.reason, piece.usage
                await writer.write(transcript, storable(piece))
        raise ModelStreamBroken

    async def _request(self, run: Run, parent_message_id: UUID) -> ChatRequest:
        return ChatRequest(
            run.model, await self._turns(run, parent_message_id), run.options.temperature, run.options.max_output_tokens
        )

    async def _turns(self, run: Run, parent_message_id: UUID) -> Sequence[Turn]:
        budget = self.catalog.get(run.model).prompt_budget
        async with self.unit_of_work.reading() as work:
            return build_prompt(
                await work.messages.newest_first(run.workspace_id, parent_message_id, budget * 3), budget
            )


def _uncancel() -> None:
    """Takes back the cancellation that was meant for the model's stream, so that the end can be written."""
    if task := asyncio.current_task():
        task.uncancel()

"""Makes answers: every run in a task that the engine owns, whoever comes and goes as a watcher."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog

from application.hub import Hub
from application.log_writer import LogWriter, Transcript
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from application.ports.clock import Clock
from application.ports.replica_registry import ReplicaRegistry
from application.ports.run_log import RunLog
from application.ports.telemetry import UNWATCHED, Telemetry
from application.ports.unit_of_work import UnitOfWorkFactory
from domain.conversation import NO_USAGE, Message, Usage
from domain.errors import (
    ChatBackError,
    DatabaseUnavailable,
    ModelStreamBroken,
    ReplicaDraining,
    ReplicaFenced,
    ReplicaLost,
)
from domain.model import ModelCatalog
from domain.prompt import Turn, build_prompt
from domain.run import Cancelled, Failed, FinishReason, Run, failed, storable

ADOPTION_LIMIT = 20
"""Orphaned runs taken in at a time."""
JOIN_SECONDS = 5
"""How long a new run waits for this replica to be known to the database, right after a start or a lost lease."""
JOIN_RETRY_SECONDS = 1
END_SECONDS = 5
"""How long the end of a run may take that was told to stop."""

log = structlog.get_logger()

Outcome = FinishReason | Failed | Cancelled
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Generation:
    """One run that this replica makes, and the task that makes it."""

    writer: LogWriter
    transcript: Transcript
    question: Message
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
    telemetry: Telemetry = UNWATCHED

    def __post_init__(self) -> None:
        self._generations: dict[UUID, Generation] = {}
        self._left: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._joined = asyncio.Event()
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

    async def owner(self) -> UUID:
        """Returns the replica_id for new runs, as soon as the database knows it. Raises DatabaseUnavailable."""
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await self._joined.wait()
        except TimeoutError:
            raise DatabaseUnavailable from None
        return self.replica_id

    def start(self, run: Run, owner: UUID, question: Message, answer: Message) -> None:
        """Generates the answer to a run that is in the log with its `started` event.

        Does nothing if this replica was fenced since the run got its owner: then it is an orphan like others.
        """
        if owner != self.replica_id:
            return
        generation = Generation(self._writer, self._writer.open(run, answer), question)
        self._generations[run.run_id] = generation
        self.telemetry.run_started()
        generation.task = asyncio.create_task(self._make(generation), name=f"run {run.run_id}")
        # No `finally` of its own would do: a task that is cancelled before its first step has none.
        generation.task.add_done_callback(lambda _: self._generations.pop(run.run_id, None))

    async def finish_even_if_left(self, work: Coroutine[None, None, T], if_left: Callable[[T], None]) -> T:
        """Awaits the work; if the caller is cancelled meanwhile the work goes on, so that nothing stays half done.

        What came of it is then given to `if_left`.
        """
        task = asyncio.create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_hand_over, if_left))
            raise

    def cancel(self, run_id: UUID) -> None:
        """Stops a run of this replica; others are left alone."""
        if generation := self._generations.get(run_id):
            generation.stop(Cancelled())

    async def wait_ended(self, run_id: UUID) -> None:
        """Returns when this replica does not make the run any more, or after 5 seconds."""
        generation = self._generations.get(run_id)
        if generation and generation.task:
            await asyncio.wait([generation.task], timeout=END_SECONDS)

    async def write_log(self) -> None:
        """Writes events for ever; a fenced replica goes on as a new one, without its runs."""
        while True:
            try:
                await self._join()
                await self._writer.run()
            except ReplicaFenced:
                log.warning("replica.fenced", replica_id=str(self.replica_id), runs=self.running)
                self._joined.clear()
                self._abandon()
                self._writer = self._new_writer()

    async def renew_lease(self) -> None:
        """Tells the others that this replica lives."""
        writer = self._writer
        if self._joined.is_set() and not await self.replicas.renew(writer.replica_id):
            writer.fence()

    async def adopt_orphans(self) -> None:
        """Ends the runs of replicas that died, with the text that the log has."""
        await self.replicas.fence_expired()
        owner, writer = await self.owner(), self._writer
        for run, message in await self.replicas.adopt_orphans(owner, set(self._generations), ADOPTION_LIMIT):
            outcome = Cancelled() if run.cancel_requested else failed(ReplicaLost())
            await writer.finish(writer.open(run, message), outcome, NO_USAGE)
            log.warning("run.orphan_ended", run_id=str(run.run_id), last_seq=run.last_seq)

    async def drain(self, seconds: float) -> None:
        """Takes no new runs, gives the running ones `seconds` to end, then ends them with what they have."""
        self._draining = True
        log.info("runs.draining", runs=self.running, seconds=seconds)
        try:
            await self._idle(seconds)
            for generation in self._generations.values():
                generation.stop(failed(ReplicaLost()))
            await self._idle(END_SECONDS)
        finally:  # also for whoever is too much in a hurry to wait
            self.hub.stop(ReplicaDraining)

    async def leave(self) -> None:
        """Gives up the lease, so that whatever is left is taken care of at once."""
        await self.replicas.leave(self.replica_id)

    async def _idle(self, seconds: float) -> None:
        """Returns when no run is being begun or made any more, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while tasks := [*self._left, *(made.task for made in self._generations.values() if made.task)]:
                    await asyncio.wait(tasks)

    async def _join(self) -> None:
        while not self._joined.is_set():
            try:
                await self.replicas.join(self.replica_id)
                self._joined.set()
            except DatabaseUnavailable:
                await asyncio.sleep(JOIN_RETRY_SECONDS)

    def _new_writer(self) -> LogWriter:
        return LogWriter(self.clock.new_id(), self.run_log, self.hub, self.clock, self.telemetry)

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
        request = await self._request(transcript.run, generation.question)
        clock, observe = asyncio.get_running_loop().time, self.telemetry.first_token
        last = clock()
        async with aclosing(self.model.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return piece.reason, piece.usage
                now = clock()
                observe(now - last)
                last, observe = now, self.telemetry.token_gap
                await writer.write(transcript, storable(piece))
        raise ModelStreamBroken

    async def _request(self, run: Run, question: Message) -> ChatRequest:
        return ChatRequest(
            run.model, await self._turns(run, question), run.options.temperature, run.options.max_output_tokens
        )

    async def _turns(self, run: Run, question: Message) -> Sequence[Turn]:
        budget = self.catalog.get(run.model).prompt_budget
        earlier: Sequence[Message] = ()
        if question.parent_message_id is not None:
            async with self.unit_of_work.reading() as work:
                earlier = await work.messages.newest_first(run.workspace_id, question.parent_message_id, budget * 3)
        return build_prompt([question, *earlier], budget)


def _hand_over(if_left: Callable[[T], None], task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        if_left(task.result())


def _uncancel() -> None:
    """Takes back the cancellation that was meant for the model's stream, so that the end can be written."""
    if task := asyncio.current_task():
        task.uncancel()

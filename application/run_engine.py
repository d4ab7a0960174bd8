"""Which answers this replica makes: every run in a task that the engine owns, whoever comes and goes as a watcher."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog

from application.audience import Audience
from application.failpoint import failpoint
from application.generation import Generation, Generator
from application.lease import Lease
from application.log_writer import RETRY_SECONDS, LogWriter
from application.ports.clock import Clock
from application.ports.event_bus import OrphansLeft
from application.ports.replica_registry import ReplicaRegistry
from application.ports.run_log import RunLog
from application.ports.telemetry import UNWATCHED, Telemetry
from domain.conversation import Message
from domain.errors import DatabaseUnavailable, ReplicaDraining, ReplicaFenced
from domain.run import Cancelled, Failed, Run

ADOPTION_LIMIT = 20
"""Orphaned runs taken in at a time."""
RUNS_LIMIT = 4_000
"""A replica that makes so many runs adopts no more."""
JOIN_SECONDS = 5
"""How long a new run waits for this replica to be known to the database, right after a start or a lost lease."""
JOIN_RETRY_SECONDS = 0.5
END_SECONDS = 5
"""How long the end of a run may take that was told to stop."""

log = structlog.get_logger()

T = TypeVar("T")


@dataclass
class RunEngine:
    """Starts, stops, takes over and hands over runs. One for each replica.

    A term is the time under one replica_id: it ends when the lease is lost, and the process goes on under a new one.
    """

    generator: Generator
    run_log: RunLog
    replicas: ReplicaRegistry
    audience: Audience
    clock: Clock
    lease: Lease = field(default_factory=Lease)
    telemetry: Telemetry = UNWATCHED

    def __post_init__(self) -> None:
        self._generations: dict[UUID, Generation] = {}
        self._beginning: set[UUID] = set()
        self._left: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._leaving = False
        self._joined = asyncio.Event()
        self._term_over = asyncio.Event()
        self._former_id: UUID | None = None
        self._writer = self._new_writer()
        self.look_for_orphans = asyncio.Event()

    @property
    def replica_id(self) -> UUID:
        """Names this process in the log, until it is fenced."""
        return self._writer.replica_id

    @property
    def running(self) -> int:
        """Returns how many runs this replica makes at this moment."""
        return len(self._generations)

    def makes(self, run_id: UUID) -> bool:
        """Says whether this replica makes the run."""
        return run_id in self._generations

    def last_seq(self, run_id: UUID) -> int:
        """Returns the newest seq that is in the log of a run that this replica makes."""
        return self._generations[run_id].transcript.seq

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

    def start(
        self, run: Run, question: Message | None, answer: Message, ends: Cancelled | Failed | None = None
    ) -> None:
        """Generates the answer to a run that is in the log with its first event, or with that of its new attempt.

        One that `ends` gets that end instead, and keeps the text that the answer has.
        Does nothing if this replica leaves or was fenced since the run got its owner: then it is an orphan like others.
        """
        if self._leaving or run.owner != self.replica_id or self.makes(run.run_id):
            return
        generation = Generation(self._writer, self._writer.open(run, answer), question, stopped_by=ends)
        self._generations[run.run_id] = generation
        self.telemetry.run_started()
        generation.task = asyncio.create_task(self.generator.make(generation), name=f"run {run.run_id}")
        # No `finally` of its own would do: a task that is cancelled before its first step has none.
        generation.task.add_done_callback(lambda _: self._forget(generation))

    async def was_stored(self, run: Run) -> bool:
        """Finds out whether a begin was committed though the commit's reply was lost. Raises DatabaseUnavailable."""
        while True:
            try:
                return bool((await self.run_log.survey(run.owner, [(run.workspace_id, run.run_id)])).standings)
            except DatabaseUnavailable:
                if self.lease.is_silent:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def begin(self, run_id: UUID, work: Coroutine[None, None, T], if_left: Callable[[T], None]) -> T:
        """Awaits the work that stores and starts a run; if the caller is cancelled meanwhile it goes on.

        What came of it is then given to `if_left`. Meanwhile the run is no orphan.
        """
        task = asyncio.create_task(work)
        self._left.add(task)
        self._beginning.add(run_id)
        task.add_done_callback(partial(self._begun, run_id))
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
                self._end_term()

    async def during_term(self, work: Callable[[UUID], Coroutine[None, None, None]]) -> None:
        """Runs work that goes by the replica_id until the term ends. Raises DatabaseUnavailable before it begins."""
        replica_id, over = await self.owner(), self._term_over
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(replica_id))
            await over.wait()
            working.cancel()

    async def check_lease(self) -> None:
        """Stops writing in time when the lease cannot be renewed, and showing when the database is silent."""
        self.lease.beat()
        if not self._joined.is_set():
            return
        if self.lease.is_over:
            self._writer.fence()
        elif self.lease.is_silent:
            self.audience.hub.stop(DatabaseUnavailable)

    async def adopt_orphans(self) -> None:
        """Goes on with the runs of replicas that died or left; those that are given up are ended with their text."""
        self.look_for_orphans.clear()
        if self._draining:
            return
        if await self.replicas.fence_expired():
            failpoint("after_fence_expired")
        owner = await self.owner()
        room = min(ADOPTION_LIMIT, RUNS_LIMIT - self.running)
        attended = self._generations.keys() | self._beginning
        adopted = await self.replicas.adopt_orphans(owner, attended, room) if room > 0 else ()
        if adopted and len(adopted) == room:
            self.look_for_orphans.set()  # there may be more
        for run, message in adopted:
            failpoint("after_adopt")
            self._take_over(run, message)

    async def drain(self, seconds: float) -> None:
        """Takes no new runs and gives the running ones `seconds` to end."""
        self._draining = True
        log.info("runs.draining", runs=self.running, seconds=seconds)
        await self._idle(seconds)

    async def hand_over(self) -> None:
        """Leaves the runs that have not ended to other replicas, and ends all watchers."""
        self._draining = self._leaving = True
        try:
            for generation in self._generations.values():
                generation.abandon()
            await self._idle(END_SECONDS)
            await self._leave()
        finally:
            self.audience.hub.close(ReplicaDraining)

    async def _leave(self) -> None:
        """Gives up the lease and tells the others, so that whatever is left is taken over at once."""
        failpoint("before_leave")
        self._joined.clear()
        self.lease.end()
        try:
            others = await self.replicas.leave(self.replica_id)
        except DatabaseUnavailable:
            log.warning("replica.left_without_word")
            return
        failpoint("after_leave")
        await self.audience.tell(others, OrphansLeft())

    def _take_over(self, run: Run, message: Message) -> None:
        """Generates an adopted run again, or ends it."""
        log.warning("run.adopted", run_id=str(run.run_id), attempt=run.attempt, crashes=run.crashes)
        self.start(run, None, message, ends=run.given_up())
        self.audience.hub.announce(run.run_id, run.last_seq)

    async def _idle(self, seconds: float) -> None:
        """Returns when no run is being begun or made any more, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while tasks := [*self._left, *(made.task for made in self._generations.values() if made.task)]:
                    await asyncio.wait(tasks)

    async def _join(self) -> None:
        while not self._joined.is_set():
            if self._draining:  # one that leaves does not come back
                await asyncio.Future()
            sent = self.lease.monotonic()
            try:
                await self.replicas.join(self.replica_id)
                if self._former_id is not None:  # its runs need not wait until the lost lease runs out
                    await self.replicas.fence(self._former_id)
            except DatabaseUnavailable:
                await asyncio.sleep(JOIN_RETRY_SECONDS)
                continue
            if not self._leaving:
                self.lease.begin(self.replica_id, sent)
                self._joined.set()
                self.look_for_orphans.set()

    def _new_writer(self) -> LogWriter:
        return LogWriter(self.clock.new_id(), self.run_log, self.audience, self.clock, self.telemetry)

    def _begun(self, run_id: UUID, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        self._beginning.discard(run_id)

    def _forget(self, generation: Generation) -> None:
        run_id = generation.transcript.run.run_id
        if self._generations.get(run_id) is generation:
            del self._generations[run_id]
            self.audience.dismiss(run_id)

    def _end_term(self) -> None:
        """Drops what a fenced replica was doing: whoever adopts the runs goes by the log."""
        self._joined.clear()
        for generation in self._generations.values():
            generation.abandon()
        self._generations.clear()
        self.audience.dismiss_all()
        self.audience.hub.stop(ReplicaFenced)
        self._former_id, self._writer = self.replica_id, self._new_writer()
        self._term_over.set()
        self._term_over = asyncio.Event()


def _hand_over(if_left: Callable[[T], None], task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        if_left(task.result())

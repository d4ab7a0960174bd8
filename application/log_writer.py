"""The one writer of a replica's events: nothing is shown to anyone before its row is committed."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from application.audience import Audience
from application.failpoint import failpoint
from application.ports.clock import Clock
from application.ports.run_log import RunLog
from application.ports.telemetry import UNWATCHED, Telemetry
from domain.conversation import Message, Usage
from domain.errors import DatabaseUnavailable, InvalidInput, ReplicaFenced
from domain.run import Cancelled, Ending, Failed, FinishReason, Run, RunEvent, TextDelta, end, failed

UNWRITTEN_LIMIT = 1 << 18
"""Characters of one run that may wait for the log; past it the model's stream is not read."""
LONGEST_PAUSE = 0.015
PAUSE_PER_RUN = 25e-6
"""A round costs as much as 20 events, so the more runs are busy the longer a round may gather: seconds for each."""
RETRY_SECONDS = 0.1

log = structlog.get_logger()


class Transcript:
    """The growing end of one run's log: text that is written, being written, and still open."""

    __slots__ = ("_drained", "_open", "_sealed", "message", "refused", "run", "seq", "texts", "unwritten")

    def __init__(self, run: Run, message: Message) -> None:
        self.run = run
        self.message = message
        self.seq = run.last_seq
        self.texts: list[str] = [message.content] if message.content else []
        self.unwritten = 0
        self.refused: InvalidInput | None = None
        self._open: list[str] = []
        self._sealed: RunEvent | None = None
        self._drained: asyncio.Future[None] | None = None

    @property
    def in_flight(self) -> bool:
        """Says whether an event of this run is on its way to the log."""
        return self._sealed is not None

    @property
    def is_open(self) -> bool:
        """Says whether text waits that no event holds yet."""
        return bool(self._open)

    def add(self, text: str) -> None:
        """Lengthens the open piece."""
        self._open.append(text)
        self.unwritten += len(text)

    def seal(self, now: datetime) -> RunEvent:
        """Closes the open piece as the next event: from here on its payload never changes."""
        run, body = self.run, TextDelta("".join(self._open))
        self._open.clear()
        self._sealed = RunEvent(run.workspace_id, run.run_id, self.seq + 1, run.attempt, now, body)
        return self._sealed

    def settle(self) -> None:
        """Counts the sealed piece as written."""
        event, self._sealed = self._sealed, None
        if event is not None and isinstance(event.body, TextDelta):
            self.seq = event.seq
            self.texts.append(event.body.text)
            self._forget(len(event.body.text))

    def discard(self, why: InvalidInput) -> None:
        """Drops a sealed piece that the log refused for its content, and all text behind it; its seq stays free."""
        self._sealed, self.refused = None, why
        self._open.clear()
        self._forget(self.unwritten)

    async def drained(self) -> None:
        """Waits until the next piece is written."""
        self._drained = asyncio.get_running_loop().create_future()
        await self._drained

    def _forget(self, length: int) -> None:
        self.unwritten -= length
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


@dataclass
class LogWriter:
    """Gathers what the runs of this replica say and commits it in rounds, one batch in flight.

    `run` must be going for anything to be written. Once the log says that the replica is fenced, it raises
    ReplicaFenced, here and to every run, and this writer is finished.
    """

    replica_id: UUID
    run_log: RunLog
    audience: Audience
    clock: Clock
    telemetry: Telemetry = UNWATCHED

    def __post_init__(self) -> None:
        self._busy: dict[Transcript, None] = {}
        self._waiting_since = 0.0
        self._transcripts = 0
        self._something = asyncio.Event()
        self._round: asyncio.Future[None] | None = None
        self.fenced = False

    def open(self, run: Run, message: Message) -> Transcript:
        """Begins to take text for a run that is in the log up to `run.last_seq`."""
        self._transcripts += 1
        return Transcript(run, message)

    async def write(self, transcript: Transcript, text: str) -> None:
        """Adds text to the run's open piece; waits while too much of it is unwritten."""
        while transcript.unwritten > UNWRITTEN_LIMIT:
            await transcript.drained()
        self._check(transcript)
        transcript.add(text)
        if not self._busy:
            self._waiting_since = asyncio.get_running_loop().time()
        self._busy[transcript] = None
        self._something.set()

    async def finish(self, transcript: Transcript, outcome: FinishReason | Failed | Cancelled, usage: Usage) -> Ending:
        """Commits the run's end with the text still open, then shows it. Nothing of the run is written after."""
        self._busy.pop(transcript, None)
        while transcript.in_flight and self._round is not None and not self.fenced:
            await asyncio.shield(self._round)
        self._transcripts -= 1
        try:
            self._check(transcript)
            ending = await self._end(transcript, outcome, usage)
        except InvalidInput as refusal:
            ending = await self._end(transcript, failed(refusal), usage)
        failpoint("after_finish_before_publish")
        self.audience.publish(ending.events)
        self.telemetry.run_ended(ending.run.state)
        return ending

    async def run(self) -> None:
        """Writes rounds for ever."""
        try:
            while True:
                await self._something.wait()
                if self.fenced:
                    raise ReplicaFenced
                await self._write_round()
        finally:
            # Whoever waits for a round that was broken off must not wait for the next.
            self.fence()

    def fence(self) -> None:
        """Stops all writing for good: the lease is lost."""
        self.fenced = True
        self._something.set()

    async def _write_round(self) -> None:
        loop = asyncio.get_running_loop()
        began, self._round = loop.time(), loop.create_future()
        self._something.clear()
        batch = [transcript for transcript in self._busy if transcript.is_open]
        since = self._waiting_since
        self._busy.clear()
        try:
            if batch:
                now = self._now()
                await self._commit(batch, [transcript.seal(now) for transcript in batch])
                self.telemetry.log_written(len(batch), loop.time() - since)
        finally:
            self._round.set_result(None)
        pause = min(LONGEST_PAUSE, PAUSE_PER_RUN * self._transcripts) - (loop.time() - began)
        if pause > 0.001:
            await asyncio.sleep(pause)

    async def _commit(self, batch: Sequence[Transcript], events: Sequence[RunEvent]) -> None:
        failpoint("before_append")
        try:
            await self._held(partial(self.run_log.append, self.replica_id, events))
        except InvalidInput:
            await self._commit_one_by_one(batch, events)
            return
        for transcript in batch:
            transcript.settle()
        failpoint("after_append_before_publish")
        self.audience.publish(events)
        failpoint("after_publish")

    async def _commit_one_by_one(self, batch: Sequence[Transcript], events: Sequence[RunEvent]) -> None:
        """Finds the run whose text the database refuses: only that one fails."""
        for transcript, event in zip(batch, events, strict=True):
            try:
                await self._held(partial(self.run_log.append, self.replica_id, [event]))
            except InvalidInput as refusal:
                transcript.discard(refusal)
                log.warning("run.text_refused", run_id=str(event.run_id), seq=event.seq)
                continue
            transcript.settle()
            self.audience.publish([event])

    async def _end(self, transcript: Transcript, outcome: FinishReason | Failed | Cancelled, usage: Usage) -> Ending:
        now = self._now()
        tail = [transcript.seal(now)] if transcript.is_open else []
        content = "".join(
            [*transcript.texts, *(event.body.text for event in tail if isinstance(event.body, TextDelta))]
        )
        message = replace(transcript.message, content=content)
        run = replace(transcript.run, last_seq=transcript.seq)
        ending = end(run, message, outcome, usage=usage, tail=tail, now=now)
        failpoint("before_finish")
        await self._held(partial(self.run_log.finish, self.replica_id, ending))
        return ending

    async def _held(self, write: Callable[[], Awaitable[bool]]) -> None:
        """Repeats a write, unchanged, until the log has it: its outcome is unknown while the database is away."""
        while not self.fenced:
            with suppress(DatabaseUnavailable):
                if await write():
                    return
                self.fence()
                break
            await asyncio.sleep(RETRY_SECONDS)
        raise ReplicaFenced

    def _now(self) -> datetime:
        """Returns the time in whole milliseconds: of microseconds a packed log would be a third larger."""
        now = self.clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def _check(self, transcript: Transcript) -> None:
        if self.fenced:
            raise ReplicaFenced
        if transcript.refused is not None:
            raise transcript.refused

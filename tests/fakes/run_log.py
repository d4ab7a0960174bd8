"""The log of events in memory."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import accumulate
from uuid import UUID

from application.ports.run_log import LogPage, RunLog, Standing, Survey
from domain import bounds
from domain.conversation import MessageStatus
from domain.errors import DatabaseUnavailable
from domain.run import Ending, RunEvent, RunState, TextDelta
from tests.fakes.database import FakeDatabase

PAGE_EVENTS = 500
PAGE_BYTES = 64 * 1024


class FakeRunLog(RunLog):
    """Takes events from replicas that have joined; what it took is in `batches`, one entry for each call.

    `fenced` refuses every replica. The next `unavailable` writes fail undone; the next `lost_replies` are done,
    though the caller is told that they failed. Nothing is written while `flowing` is clear.
    """

    def __init__(self, database: FakeDatabase) -> None:
        self.fenced = False
        self.unavailable = 0
        self.lost_replies = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.batches: list[Sequence[RunEvent]] = []
        self._database = database

    async def append(self, replica_id: UUID, events: Sequence[RunEvent]) -> bool:
        return await self._write(replica_id, events, None)

    async def finish(self, replica_id: UUID, ending: Ending) -> bool:
        return await self._write(replica_id, ending.events, ending)

    async def read(self, workspace_id: UUID, run_id: UUID, after_seq: int) -> LogPage:
        stored = self._database.tables.events
        newer = [stored[key] for key in sorted(key for key in stored if key[0] == run_id and key[1] > after_seq)]
        newer = [event for event in newer if event.workspace_id == workspace_id]
        sizes = accumulate(len(e.body.text.encode()) if isinstance(e.body, TextDelta) else 0 for e in newer)
        events = newer[: min(PAGE_EVENTS, max(1, sum(size <= PAGE_BYTES for size in sizes)))]
        return LogPage(events, len(events) < len(newer))

    async def survey(self, replica_id: UUID, watched: Collection[tuple[UUID, UUID]]) -> Survey:
        tables = self._database.tables
        known = [tables.runs[run_id] for _, run_id in watched if run_id in tables.runs]
        mine = [run for run in tables.runs.values() if run.owner == replica_id and run.state is RunState.RUNNING]
        return Survey(
            [
                Standing(run.run_id, run.owner, tables.last_seq(run.run_id))
                for run in known
                if (run.workspace_id, run.run_id) in watched
            ],
            [run.run_id for run in mine if run.cancel_requested],
        )

    async def pack(self, ended_before: datetime, limit: int) -> int:
        """Only counts: events in memory stay as they are."""
        tables = self._database.tables
        ended = [run for run in tables.runs.values() if run.end_time and run.end_time < ended_before]
        unpacked = [run.run_id for run in ended if run.run_id not in tables.packed][:limit]
        tables.packed.update(dict.fromkeys(unpacked, True))
        return len(unpacked)

    async def _write(self, replica_id: UUID, events: Sequence[RunEvent], ending: Ending | None) -> bool:
        await self.flowing.wait()
        if self.unavailable:
            self.unavailable -= 1
            raise DatabaseUnavailable
        if not self._holds(replica_id):
            return False
        self._store(events, ending)
        if self.lost_replies:
            self.lost_replies -= 1
            raise DatabaseUnavailable
        return True

    def _holds(self, replica_id: UUID) -> bool:
        lease = self._database.tables.replicas.get(replica_id)
        alive = lease is not None and not lease.fenced and lease.until > self._database.clock.now()
        return alive and not self.fenced

    def _store(self, events: Sequence[RunEvent], ending: Ending | None) -> None:
        for event in events:
            if isinstance(event.body, TextDelta):
                bounds.text("content", event.body.text, at_most=len(event.body.text))
        for event in events:
            self._database.tables.events.setdefault((event.run_id, event.seq), event)
        self.batches.append(events)
        if ending:
            self._end(ending)

    def _end(self, ending: Ending) -> None:
        tables, key = self._database.tables, (ending.run.workspace_id, ending.message.message_id)
        if tables.messages[key].status is MessageStatus.STREAMING:
            tables.messages[key] = ending.message
        stored = tables.runs[ending.run.run_id]
        if stored.state is RunState.RUNNING:
            tables.runs[ending.run.run_id] = replace(
                ending.run, owner=stored.owner, crashes=stored.crashes, cancel_requested=stored.cancel_requested
            )

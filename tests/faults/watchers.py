"""Clients that follow one run to its end over as many streams as it takes, and write down all they see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import uuid4

import grpc

from chatback.v1.chat_service_pb2 import SendMessageRequest, StreamRunRequest
from chatback.v1.run_pb2 import RunEvent
from tests.e2e.caller import Client, failure_in
from tests.faults.history import Break, History, Sight, is_last, kind_of
from tests.faults.model import Question
from tests.faults.processes import Replica

PATIENCE_SECONDS = 120
"""How long a watcher tries before it says that the run is stuck."""
IDLE_SECONDS = 20
"""How long a stream may be silent before its client tries another. The model says something much more often."""


@dataclass(eq=False, slots=True)
class Watcher:
    """One client with one cursor. It resumes at replicas that chance chooses among `places`, which may change.

    - `drops` is how probable it is that the client breaks its own stream after an event.
    - `idle_seconds` is how long a stream may be silent before it tries another.
    - `run_id` is empty and `seq` 0 until the first event.
    """

    name: str
    token: str
    places: Sequence[Replica]
    history: History
    random: Random
    drops: float = 0.0
    idle_seconds: float = IDLE_SECONDS
    run_id: str = ""
    seq: int = 0
    events: list[RunEvent] = field(default_factory=list)
    question: SendMessageRequest | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(
        self, conversation_id: str, question: Question, *, on: Replica | None = None, request_id: str = ""
    ) -> RunEvent:
        """Asks, first on this replica, and follows the answer to its end; returns the last event."""
        self.question = SendMessageRequest(
            conversation_id=conversation_id, content=str(question), request_id=request_id or str(uuid4())
        )
        return await self._follow(on)

    async def watch(self, run_id: str, after_seq: int = 0, *, on: Replica | None = None) -> RunEvent:
        """Follows a run from after this seq on; returns its last event."""
        self.run_id, self.seq = run_id, after_seq
        if after_seq:
            self.history.after[self.name] = after_seq
        return await self._follow(on)

    async def until(self, condition: Callable[[Watcher], object]) -> None:
        """Waits until it has seen enough; gives up after 60 seconds."""
        async with asyncio.timeout(60):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def until_kind(self, kind: str) -> None:
        """Waits until it has seen an event of this kind."""
        await self.until(lambda watcher: any(kind_of(event) == kind for event in watcher.events))

    async def until_text(self) -> None:
        """Waits until the answer has begun."""
        await self.until_kind("text_delta")

    @property
    def has_ended(self) -> bool:
        """Says whether the run's last event was seen."""
        return bool(self.events) and is_last(self.events[-1])

    async def _follow(self, on: Replica | None) -> RunEvent:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    await self._visit(on or self.random.choice(self.places))
                    if self.has_ended:
                        return self.events[-1]
                    on = None
                    await asyncio.sleep(self.random.uniform(0, 0.2))
        except TimeoutError:
            breaks = [each for each in self.history.breaks if each.watcher == self.name][-3:]
            raise AssertionError(f"{self.name} of run {self.run_id or '?'} came to {self.seq}, then {breaks}") from None

    async def _visit(self, replica: Replica) -> None:
        """Takes what one stream has."""
        call, began_at = self._call(replica), self.seq
        try:
            while (response := await self._next(call)) is not grpc.aio.EOF:
                self._take(replica, response.event)
                if self.has_ended or self.random.random() < self.drops:
                    return
            self._broke(replica, grpc.StatusCode.OK)
        except TimeoutError:
            self._was_silent(replica)
        except grpc.aio.AioRpcError as error:
            told = failure_in(error)
            is_at_the_door = told.code is grpc.StatusCode.CANCELLED and replica.leaves and self.seq == began_at
            if not is_at_the_door:
                self._broke(replica, told.code, told.reason, told.metadata)
        finally:
            call.cancel()

    def _call(self, replica: Replica) -> Any:
        chat = Client(replica.channel, self.token).chat
        if not self.run_id:
            assert self.question is not None
            return chat.SendMessage(self.question)
        return chat.StreamRun(StreamRunRequest(run_id=self.run_id, after_seq=self.seq))

    async def _next(self, call: Any) -> Any:
        async with asyncio.timeout(self.idle_seconds) as idle:
            try:
                return await call.read()
            except grpc.aio.AioRpcError:
                if idle.expired():  # then the status is what the call makes of being given up here
                    raise TimeoutError from None
                raise

    def _take(self, replica: Replica, event: RunEvent) -> None:
        self.history.sights.append(Sight(self.name, replica.name, time.monotonic(), event))
        self.events.append(event)
        self.run_id, self.seq = event.run_id, event.seq
        self._news.set()

    def _was_silent(self, replica: Replica) -> None:
        self.history.silences.append(f"{self.name} of run {self.run_id or '?'} heard nothing of {replica.name}")

    def _broke(
        self, replica: Replica, code: grpc.StatusCode, reason: str = "", told: dict[str, str] | None = None
    ) -> None:
        said = int(told["last_seq"]) if told and told.get("run_id") and "last_seq" in told else None
        broken = Break(self.name, replica.name, self.run_id, time.monotonic(), code, reason, self.seq, said)
        self.history.breaks.append(broken)
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK), broken

"""Asking for an answer and watching it come."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias
from uuid import UUID

from application import placing
from application.failpoint import failpoint
from application.hub import Hub, Subscription
from application.placing import Place
from application.ports.clock import Clock
from application.ports.unit_of_work import UnitOfWork, UnitOfWorkFactory
from application.remote_runs import RemoteRuns
from application.run_engine import RunEngine
from application.watching import Watching
from domain.beginning import Beginning, begin
from domain.errors import DatabaseUnavailable, Unavailable
from domain.identity import Caller
from domain.model import ModelCatalog
from domain.prompt import check_fits
from domain.run import Question, Regeneration, Run, RunEvent, RunState

Placing: TypeAlias = Callable[[UnitOfWork], Awaitable[Place]]
Begun: TypeAlias = "tuple[Run, RunEvent, Subscription] | UUID"
"""A new run with its first event and who watches it from there, or the run of an earlier equal call."""


@dataclass(frozen=True)
class Chat:
    """Use cases on runs. A run belongs to no call: whoever asked for it may go, and anyone of the owner's may watch."""

    unit_of_work: UnitOfWorkFactory
    engine: RunEngine
    remote: RemoteRuns
    watching: Watching
    hub: Hub
    catalog: ModelCatalog
    clock: Clock

    async def send(self, caller: Caller, question: Question) -> AsyncGenerator[RunEvent, None]:
        """Stores the question, starts its answer, and returns the events from the first on.

        - The same request_id with the same question attaches to the same run, finished or not.
        - The parent is the conversation's current leaf unless the question names one, and must be a finished message.
        Raises ModelNotFound, PromptTooLong, ConversationNotFound, MessageNotFound, InvalidField, RunInProgress,
        RequestIdReused, RunNotFound (of an earlier equal call, if deleted), ReplicaDraining.
        """
        model = self.catalog.get(question.options.model)
        check_fits(question.content, model.prompt_budget)
        place = partial(placing.below_new_question, caller=caller, question=question, clock=self.clock)
        return await self._answer(caller, question, model.name, place)

    async def regenerate(self, caller: Caller, regeneration: Regeneration) -> AsyncGenerator[RunEvent, None]:
        """Starts another answer to the question of an answer, and returns the events from the first on.

        Idempotent like `send`. The answer must be finished. Raises what `send` does.
        """
        model = self.catalog.get(regeneration.options.model)
        place = partial(placing.beside_answer, caller=caller, regeneration=regeneration, budget=model.prompt_budget)
        return await self._answer(caller, regeneration, model.name, place)

    async def stream(self, caller: Caller, run_id: UUID, after_seq: int) -> AsyncGenerator[RunEvent, None]:
        """Returns the events after `after_seq`, then live ones, to the end. Raises RunNotFound, CursorAhead."""
        run = await self.run(caller, run_id)
        run.check_cursor(after_seq)
        if run.state is not RunState.RUNNING and after_seq == run.last_seq:
            return _nothing()
        subscription = self.hub.subscribe(run)
        self.remote.watch(run)
        return self.watching.follow(run, subscription, [], after_seq)

    async def run(self, caller: Caller, run_id: UUID) -> Run:
        """Returns the run. Raises RunNotFound."""
        async with self.unit_of_work.reading() as work:
            return await work.runs.get(run_id, caller)

    async def cancel(self, caller: Caller, run_id: UUID) -> Run:
        """Stops a run, unless it has ended, and returns it: ended, if this replica makes it. Raises RunNotFound.

        One that another replica makes ends within about a second.
        """
        async with self.unit_of_work() as work:
            await work.runs.get(run_id, caller)  # a run of a deleted conversation is as good as none
            run = await work.runs.request_cancel(run_id, caller)
            await work.commit()
        failpoint("after_cancel_commit")
        if run.state is not RunState.RUNNING:
            return run
        self.remote.cancel(run)
        await self.engine.wait_ended(run_id)
        return await self.run(caller, run_id)

    async def _answer(
        self, caller: Caller, wanted: Question | Regeneration, model: str, place: Placing
    ) -> AsyncGenerator[RunEvent, None]:
        self.engine.check_open()
        run_id = self.clock.new_id()
        begun = await self.engine.begin(run_id, self._begin(caller, wanted, run_id, model, place), self._left_behind)
        if isinstance(begun, UUID):
            return await self.stream(caller, begun, 0)
        run, started, subscription = begun
        events = self.watching.follow(run, subscription, [started], 0)
        return self._cancelling(events, run.run_id) if wanted.options.cancel_on_disconnect else events

    async def _cancelling(self, events: AsyncGenerator[RunEvent, None], run_id: UUID) -> AsyncGenerator[RunEvent, None]:
        """Shows the events; whoever leaves before the last one takes the run along, but not who is sent away."""
        left = True
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
            left = False
        except Unavailable:
            left = False
            raise
        finally:
            if left:
                self.engine.cancel(run_id)

    async def _begin(
        self, caller: Caller, wanted: Question | Regeneration, run_id: UUID, model: str, place: Placing
    ) -> Begun:
        """Stores a run with all that belongs to it, and starts it."""
        stored = await self._store(caller, wanted, run_id, model, place)
        if isinstance(stored, UUID):
            return stored
        failpoint("after_begin_commit")
        subscription = self.hub.subscribe(stored.run)
        self.engine.start(stored.run, stored.question, stored.answer)
        return stored.run, stored.started, subscription

    async def _store(
        self, caller: Caller, wanted: Question | Regeneration, run_id: UUID, model: str, place: Placing
    ) -> Beginning | UUID:
        """Stores question, answer, run and first event in one transaction, or returns the run of an earlier equal call.

        Where the commit's reply is lost the database is asked, so that no stored run is left without its answer.
        """
        owner, begun = await self.engine.owner(), None
        try:
            async with self.unit_of_work() as work:
                if wanted.request_id:
                    now = self.clock.now()
                    earlier = await work.requests.claim(caller, wanted.request_id, wanted.digest, run_id, now)
                    if earlier is not None:
                        return earlier
                where = await place(work)
                begun = begin(
                    where.conversation,
                    where.question,
                    wanted.options,
                    run_id=run_id,
                    message_id=self.clock.new_id(),
                    model=model,
                    owner=owner,
                    now=self.clock.now(),
                )
                new = [begun.question, begun.answer] if where.is_new else [begun.answer]
                await work.messages.add(caller.workspace_id, *new)
                await work.runs.add(begun.run, begun.started)
                await work.conversations.save(begun.conversation)
                failpoint("before_begin_commit")
                await work.commit()
        except DatabaseUnavailable:
            # Only here, where the connection has been given back: all who wait for an answer may hold one each.
            if begun is None or not await self.engine.was_stored(begun.run):
                raise
        return begun

    def _left_behind(self, begun: Begun) -> None:
        """Does for a caller who left before the first event what is done for one who leaves later."""
        if isinstance(begun, UUID):
            return
        run, _, subscription = begun
        self.hub.unsubscribe(run.run_id, subscription)
        if run.options.cancel_on_disconnect:
            self.engine.cancel(run.run_id)


async def _nothing() -> AsyncGenerator[RunEvent, None]:
    """Shows an ended run to somebody who has seen it all."""
    nothing: Sequence[RunEvent] = ()
    for event in nothing:
        yield event

"""Asking for an answer and watching it come."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from uuid import UUID

from application.hub import Hub, Subscription
from application.ports.clock import Clock
from application.ports.unit_of_work import UnitOfWork, UnitOfWorkFactory
from application.run_engine import RunEngine
from application.watching import Watching
from domain.conversation import Conversation, Message, MessageRole, MessageStatus
from domain.identity import Caller
from domain.model import ModelCatalog
from domain.prompt import check_fits
from domain.run import Question, Run, RunEvent, RunState, Started


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that is new in the log, with both its messages and its first event."""

    run: Run
    question: Message
    answer: Message
    started: RunEvent


@dataclass(frozen=True)
class Chat:
    """Use cases on runs. A run belongs to no call: whoever asked for it may go, and anyone of the owner's may watch."""

    unit_of_work: UnitOfWorkFactory
    engine: RunEngine
    watching: Watching
    hub: Hub
    catalog: ModelCatalog
    clock: Clock

    async def send(self, caller: Caller, question: Question) -> AsyncGenerator[RunEvent, None]:
        """Stores the question, starts its answer, and returns the events from the first on.

        - The same request_id with the same question attaches to the same run, finished or not.
        - The parent is the conversation's current leaf unless the question names one, and must be a finished message.
        Raises ModelNotFound, PromptTooLong, ConversationNotFound, MessageNotFound, RunInProgress, RequestIdReused,
        ReplicaDraining.
        """
        model = self.catalog.get(question.options.model)
        check_fits(question.content, model.prompt_budget)
        self.engine.check_open()
        begun = await self.engine.finish_even_if_left(self._begin(caller, question, model.name), self._left_behind)
        if isinstance(begun, UUID):
            return await self.stream(caller, begun, 0)
        run, started, subscription = begun
        events = self.watching.follow(run, subscription, [started], 0)
        return self._cancelling(events, run.run_id) if question.options.cancel_on_disconnect else events

    async def stream(self, caller: Caller, run_id: UUID, after_seq: int) -> AsyncGenerator[RunEvent, None]:
        """Returns the events after `after_seq`, then live ones, to the end. Raises RunNotFound, CursorAhead."""
        run = await self.run(caller, run_id)
        run.check_cursor(after_seq)
        if run.state is not RunState.RUNNING and after_seq == run.last_seq:
            return _nothing()
        return self.watching.follow(run, self.hub.subscribe(run_id), [], after_seq)

    async def run(self, caller: Caller, run_id: UUID) -> Run:
        """Returns the run. Raises RunNotFound."""
        async with self.unit_of_work.reading() as work:
            return await work.runs.get(run_id, caller)

    async def cancel(self, caller: Caller, run_id: UUID) -> Run:
        """Stops a run, unless it has ended, and returns it: ended, if this replica makes it. Raises RunNotFound."""
        async with self.unit_of_work() as work:
            await work.runs.get(run_id, caller)  # a run of a deleted conversation is as good as none
            run = await work.runs.request_cancel(run_id, caller)
            await work.commit()
        if run.state is not RunState.RUNNING:
            return run
        self.engine.cancel(run_id)
        await self.engine.wait_ended(run_id)
        return await self.run(caller, run_id)

    async def _cancelling(self, events: AsyncGenerator[RunEvent, None], run_id: UUID) -> AsyncGenerator[RunEvent, None]:
        """Shows the events; whoever leaves before the last one takes the run along."""
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self.engine.cancel(run_id)

    async def _begin(self, caller: Caller, question: Question, model: str) -> tuple[Run, RunEvent, Subscription] | UUID:
        """Stores question, answer, run and first event in one transaction, and starts the run.

        Returns the run of an earlier equal call instead where there is one.
        """
        owner, run_id, now = await self.engine.owner(), self.clock.new_id(), self.clock.now()
        async with self.unit_of_work() as work:
            if question.request_id:
                earlier = await work.requests.claim(caller, question.request_id, question.digest, run_id, now)
                if earlier is not None:
                    return earlier
            conversation = await work.conversations.lock(question.conversation_id, caller)
            parent = await self._parent(work, conversation, question)
            begun = self._compose(conversation, parent, question, run_id, model)
            await work.messages.add(caller.workspace_id, begun.question, begun.answer)
            await work.runs.add(begun.run, owner, begun.started)
            await work.conversations.save(
                replace(conversation, leaf_message_id=begun.answer.message_id, update_time=begun.run.create_time)
            )
            await work.commit()
        subscription = self.hub.subscribe(run_id)
        self.engine.start(begun.run, owner, begun.question, begun.answer)
        return begun.run, begun.started, subscription

    def _left_behind(self, begun: tuple[Run, RunEvent, Subscription] | UUID) -> None:
        """Does for a caller who left before the first event what is done for one who leaves later."""
        if isinstance(begun, UUID):
            return
        run, _, subscription = begun
        self.hub.unsubscribe(run.run_id, subscription)
        if run.options.cancel_on_disconnect:
            self.engine.cancel(run.run_id)

    async def _parent(self, work: UnitOfWork, conversation: Conversation, question: Question) -> Message | None:
        parent_id = question.parent_message_id or conversation.leaf_message_id
        if parent_id is None:
            return None
        parent = await work.messages.get(conversation.workspace_id, conversation.conversation_id, parent_id)
        parent.check_can_be_answered()
        return parent

    def _compose(
        self, conversation: Conversation, parent: Message | None, question: Question, run_id: UUID, model: str
    ) -> Begun:
        now = self.clock.now()
        asked = Message(
            message_id=self.clock.new_id(),
            conversation_id=conversation.conversation_id,
            parent_message_id=parent.message_id if parent else None,
            depth=parent.depth + 1 if parent else 1,
            role=MessageRole.USER,
            content=question.content,
            status=MessageStatus.COMPLETE,
            create_time=now,
        )
        answer = Message(
            message_id=self.clock.new_id(),
            conversation_id=conversation.conversation_id,
            parent_message_id=asked.message_id,
            depth=asked.depth + 1,
            role=MessageRole.ASSISTANT,
            content="",
            status=MessageStatus.STREAMING,
            create_time=now,
            model=model,
            run_id=run_id,
        )
        run = Run(
            run_id=run_id,
            workspace_id=conversation.workspace_id,
            user_id=conversation.user_id,
            conversation_id=conversation.conversation_id,
            message_id=answer.message_id,
            model=model,
            options=question.options,
            create_time=now,
        )
        started = RunEvent(
            run.workspace_id,
            run_id,
            1,
            1,
            now,
            Started(run.conversation_id, asked.message_id, answer.message_id, model),
        )
        return Begun(run, asked, answer, started)


async def _nothing() -> AsyncGenerator[RunEvent, None]:
    """Shows an ended run to somebody who has seen it all."""
    nothing: Sequence[RunEvent] = ()
    for event in nothing:
        yield event

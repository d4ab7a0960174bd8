"""Making one answer: the model's stream, and how it ends."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from uuid import UUID

import structlog

from application.failpoint import failpoint
from application.log_writer import RETRY_SECONDS, LogWriter, Transcript
from application.ports.chat_model import ChatModel, ChatRequest, Finish
from application.ports.clock import Clock
from application.ports.telemetry import UNWATCHED, Telemetry
from application.ports.unit_of_work import UnitOfWorkFactory
from domain.conversation import NO_USAGE, Message, Usage
from domain.errors import ChatBackError, DatabaseUnavailable, ModelStreamBroken, ReplicaFenced
from domain.model import ModelCatalog
from domain.prompt import Turn, build_prompt
from domain.run import ANSWER_LIMIT, Cancelled, Failed, FinishReason, failed, storable

log = structlog.get_logger()

Outcome = FinishReason | Failed | Cancelled


@dataclass(eq=False, slots=True)
class Generation:
    """One run that this replica makes, and the task that makes it."""

    writer: LogWriter
    transcript: Transcript
    question: Message | None
    """What is answered, where it is known without asking the database."""
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

    def abandon(self) -> None:
        """Closes the model's stream and writes no end: another replica goes on with the run."""
        if self.listens and self.task is not None:
            self.task.cancel()

    def verdict(self) -> Cancelled | Failed | None:
        """Returns why the generation was stopped, None if nobody stopped it."""
        return self.stopped_by


@dataclass(frozen=True)
class Generator:
    """Asks models and writes down what they say."""

    model: ChatModel
    catalog: ModelCatalog
    unit_of_work: UnitOfWorkFactory
    clock: Clock
    telemetry: Telemetry = UNWATCHED

    async def make(self, generation: Generation) -> None:
        """Generates the answer and commits its end. Leaves a run of a fenced replica as it is."""
        run_id = generation.transcript.run.run_id
        generation.began = True
        try:
            outcome, usage = await self._generate(generation)
            generation.listens = False
            await generation.writer.finish(generation.transcript, outcome, usage)
        except ReplicaFenced:
            log.warning("run.abandoned", run_id=str(run_id))
        except Exception:  # a defect: the run is an orphan of this replica's own from here on
            log.exception("run.not_ended", run_id=str(run_id))

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
        transcript, writer, room = generation.transcript, generation.writer, ANSWER_LIMIT
        request = await self._request(generation)
        clock, observe = asyncio.get_running_loop().time, self.telemetry.first_token
        last = clock()
        async with aclosing(self.model.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return piece.reason, piece.usage
                now = clock()
                observe(now - last)
                last, observe = now, self.telemetry.token_gap
                await writer.write(transcript, storable(piece[:room]))
                room -= len(piece)
                if room <= 0:
                    return FinishReason.LENGTH, NO_USAGE
                failpoint("after_piece")
        raise ModelStreamBroken

    async def _request(self, generation: Generation) -> ChatRequest:
        run = generation.transcript.run
        return ChatRequest(
            run.model, await self._turns(generation), run.options.temperature, run.options.max_output_tokens
        )

    async def _turns(self, generation: Generation) -> Sequence[Turn]:
        """Returns the branch up to the question, cut to the model's budget."""
        run, question = generation.transcript.run, generation.question
        budget = self.catalog.get(run.model).prompt_budget
        known = [question] if question else []
        leaf = question.parent_message_id if question else generation.transcript.message.parent_message_id
        earlier = await self._branch(generation.writer, run.workspace_id, leaf, budget * 3) if leaf else ()
        return build_prompt([*known, *earlier], budget)

    async def _branch(self, writer: LogWriter, workspace_id: UUID, leaf: UUID, max_bytes: int) -> Sequence[Message]:
        """Reads as long as this replica may write: a database that is away for a moment costs no answer."""
        while not writer.fenced:
            with suppress(DatabaseUnavailable):
                async with self.unit_of_work.reading() as work:
                    return await work.messages.newest_first(workspace_id, leaf, max_bytes)
            await asyncio.sleep(RETRY_SECONDS)
        raise ReplicaFenced


def _uncancel() -> None:
    """Takes back the cancellation that was meant for the model's stream, so that the end can be written."""
    if task := asyncio.current_task():
        task.uncancel()

"""A run makes one assistant message; its events are what watchers see."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from domain import bounds
from domain.conversation import CONTENT_LIMIT, NO_USAGE, Message, MessageStatus, Usage
from domain.errors import ChatBackError, CursorAhead, ReplicaLost

ANSWER_LIMIT = 1_000_000
"""Characters of an answer, so that the event with the whole of it stays below the 4 MiB that gRPC clients receive."""
CRASH_LIMIT = 3
"""A run under which so many replicas died is ended: it may be what kills them."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class RunState(StrEnum):
    """RUNNING until the one terminal event is in the log."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class FinishReason(StrEnum):
    """Why the model stopped by itself."""

    STOP = "STOP"
    LENGTH = "LENGTH"
    CONTENT_FILTER = "CONTENT_FILTER"


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How an answer is to be made; None leaves the choice to the model's endpoint."""

    model: str = ""
    temperature: float | None = None
    max_output_tokens: int | None = None
    cancel_on_disconnect: bool = False

    def __post_init__(self) -> None:
        bounds.text("options.model", self.model, at_most=200)
        if self.temperature is not None:
            bounds.number("options.temperature", self.temperature, at_least=0.0, at_most=2.0)
        if self.max_output_tokens is not None:
            bounds.number("options.max_output_tokens", self.max_output_tokens, at_least=1, at_most=1_000_000)


@dataclass(frozen=True, slots=True)
class Question:
    """A user's turn, and how it is to be answered. `digest` tells a repeated request from another one.

    It follows `parent_message_id` or takes the place of `edited_message_id` on a branch of its own; without either it
    goes on where the conversation ends.
    """

    conversation_id: UUID
    content: str
    request_id: str = ""
    digest: bytes = b""
    parent_message_id: UUID | None = None
    edited_message_id: UUID | None = None
    options: SendOptions = SendOptions()

    def __post_init__(self) -> None:
        bounds.text("content", self.content, at_least=1, at_most=CONTENT_LIMIT)
        bounds.visible("request_id", self.request_id, at_most=255)
        if self.parent_message_id:
            bounds.absent("edited_message_id", self.edited_message_id, beside="parent_message_id")


@dataclass(frozen=True, slots=True)
class Regeneration:
    """The wish for another answer to a question, beside the one in `message_id`, and how it is to be made."""

    message_id: UUID
    request_id: str = ""
    digest: bytes = b""
    options: SendOptions = SendOptions()

    def __post_init__(self) -> None:
        bounds.visible("request_id", self.request_id, at_most=255)


@dataclass(frozen=True, slots=True)
class Started:
    """The first event of every run."""

    conversation_id: UUID
    user_message_id: UUID
    message_id: UUID
    model: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class AttemptReset:
    """Another attempt begins: all text since `Started` is void."""

    reason: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The model ended its answer. `message` is the stored one."""

    message: Message
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer could not be finished; `reason` is one of error_reason.proto, the text so far is kept."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody who may do so stopped the run; the text so far is kept."""


Terminal = Completed | Failed | Cancelled
EventBody = Started | TextDelta | AttemptReset | Terminal


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One entry of a run's log: `seq` counts from 1 without gaps; (run_id, seq) never changes its content."""

    workspace_id: UUID
    run_id: UUID
    seq: int
    attempt: int
    create_time: datetime
    body: EventBody

    @property
    def characters(self) -> int:
        """How much text is in it."""
        if isinstance(self.body, TextDelta):
            return len(self.body.text)
        return len(self.body.message.content) if isinstance(self.body, Completed) else 0

    @property
    def is_last(self) -> bool:
        """Says whether the run ends with this event."""
        return isinstance(self.body, Terminal)


@dataclass(frozen=True, slots=True)
class Run:
    """The making of one assistant message. `last_seq` is its newest event in the log, `owner` the replica making it.

    `crashes` counts how often its making broke off; being handed over does not count.
    """

    run_id: UUID
    workspace_id: UUID
    user_id: UUID
    conversation_id: UUID
    message_id: UUID
    model: str
    options: SendOptions
    create_time: datetime
    owner: UUID
    state: RunState = RunState.RUNNING
    attempt: int = 1
    last_seq: int = 1
    cancel_requested: bool = False
    usage: Usage = NO_USAGE
    failure: Failed | None = None
    end_time: datetime | None = None
    crashes: int = 0

    def check_cursor(self, after_seq: int) -> None:
        """Refuses a cursor past the newest event: nothing that was ever shown lies there."""
        if after_seq > self.last_seq:
            raise CursorAhead(self.last_seq)

    def given_up(self) -> "Cancelled | Failed | None":
        """Returns how a run ends that lost its owner, None if it is to be generated again."""
        if self.cancel_requested:
            return Cancelled()
        return failed(ReplicaLost()) if self.crashes >= CRASH_LIMIT else None


@dataclass(frozen=True, slots=True)
class Ending:
    """What is committed together when a run ends: the run, its message and the last events of the log."""

    run: Run
    message: Message
    events: Sequence[RunEvent]


def storable(text: str) -> str:
    """Returns a model's text with NUL and lone surrogates, which no database takes, replaced by U+FFFD."""
    if text.isascii() and "\0" not in text:  # nearly all of it, at a tenth of the cost
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def failed(error: ChatBackError) -> Failed:
    """Returns the terminal event that tells watchers of this error."""
    return Failed(reason=error.reason, message=error.message)


def end(
    run: Run,
    message: Message,
    outcome: FinishReason | Failed | Cancelled,
    *,
    usage: Usage,
    tail: Sequence[RunEvent],
    now: datetime,
) -> Ending:
    """Returns the ending of a run whose message holds all text of the log including `tail`.

    Shapes the run's state and the message's status by how it ended (the table in the API contract):
    a failure keeps partial text as INCOMPLETE, and is FAILED where there is none.
    """
    state, status = _verdict(outcome, has_text=bool(message.content))
    message = replace(message, status=status, usage=usage)
    body: Terminal = Completed(message, outcome) if isinstance(outcome, FinishReason) else outcome
    last = RunEvent(run.workspace_id, run.run_id, (tail[-1].seq if tail else run.last_seq) + 1, run.attempt, now, body)
    run = replace(
        run,
        state=state,
        usage=usage,
        last_seq=last.seq,
        end_time=now,
        failure=outcome if isinstance(outcome, Failed) else None,
    )
    return Ending(run, message, [*tail, last])


def _verdict(outcome: FinishReason | Failed | Cancelled, *, has_text: bool) -> tuple[RunState, MessageStatus]:
    match outcome:
        case FinishReason.STOP:
            return RunState.COMPLETED, MessageStatus.COMPLETE
        case FinishReason():
            return RunState.COMPLETED, MessageStatus.INCOMPLETE
        case Failed():
            return RunState.FAILED, MessageStatus.INCOMPLETE if has_text else MessageStatus.FAILED
        case Cancelled():
            return RunState.CANCELLED, MessageStatus.CANCELLED

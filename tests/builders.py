"""Ready-made domain objects: each argument by name replaces a default."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain.conversation import Conversation, Message, MessageRole, MessageStatus
from domain.identity import Caller, Role, Session, User
from domain.run import EventBody, Run, RunEvent, SendOptions, Started, TextDelta
from tests.fakes.clock import FakeClock

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_234, UTC)

new_id = FakeClock(NOW).new_id


def a_user(**changes: Any) -> User:
    """A member of a workspace of its own, with an e-mail of its own."""
    user_id = new_id()
    user = User(user_id, new_id(), f"{user_id}@example.org", "Ada", Role.MEMBER, NOW)
    return replace(user, **changes)


def a_caller(user: User | None = None, **changes: Any) -> Caller:
    """A signed-in user."""
    user = user or a_user()
    return replace(Caller(user.workspace_id, user.user_id, new_id(), user.role), **changes)


def a_session(user: User | None = None, **changes: Any) -> Session:
    """A sign-in that began at NOW and ends in 30 days."""
    user = user or a_user()
    session = Session(new_id(), user.workspace_id, user.user_id, b"salt", 1, NOW, NOW + timedelta(days=30))
    return replace(session, **changes)


def a_conversation(owner: Caller | None = None, **changes: Any) -> Conversation:
    """A conversation without messages."""
    owner = owner or a_caller()
    conversation = Conversation(new_id(), owner.workspace_id, owner.user_id, "Weather", {"team": "sky"}, None, NOW, NOW)
    return replace(conversation, **changes)


def a_message(conversation: Conversation, parent: Message | None = None, **changes: Any) -> Message:
    """A user's turn: the first of the conversation, or one that follows `parent`."""
    message = Message(
        message_id=new_id(),
        conversation_id=conversation.conversation_id,
        parent_message_id=parent.message_id if parent else None,
        depth=parent.depth + 1 if parent else 1,
        role=MessageRole.USER,
        content="Will it rain?",
        status=MessageStatus.COMPLETE,
        create_time=NOW,
    )
    return replace(message, **changes)


def an_answer(conversation: Conversation, parent: Message | None = None, **changes: Any) -> Message:
    """An assistant's message that is still being written."""
    answer = a_message(conversation, parent, role=MessageRole.ASSISTANT, content="", status=MessageStatus.STREAMING)
    return replace(answer, **{"model": "model-1", "run_id": new_id(), **changes})


def a_run(conversation: Conversation, answer: Message, **changes: Any) -> Run:
    """The running run that makes the answer."""
    run = Run(
        run_id=answer.run_id or new_id(),
        workspace_id=conversation.workspace_id,
        user_id=conversation.user_id,
        conversation_id=conversation.conversation_id,
        message_id=answer.message_id,
        model=answer.model,
        options=SendOptions(temperature=0.5),
        create_time=NOW,
        owner=new_id(),
    )
    return replace(run, **changes)


def an_event(run: Run, seq: int, body: EventBody | str, **changes: Any) -> RunEvent:
    """An event of the run; a string is a piece of its text."""
    body = TextDelta(body) if isinstance(body, str) else body
    return replace(RunEvent(run.workspace_id, run.run_id, seq, run.attempt, NOW, body), **changes)


def a_start(run: Run, user_message_id: UUID | None = None) -> RunEvent:
    """Event 1 of the run."""
    body = Started(run.conversation_id, user_message_id or new_id(), run.message_id, run.model)
    return an_event(run, 1, body)

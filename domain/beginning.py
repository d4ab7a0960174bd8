"""What is stored when a run begins."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from domain.conversation import Conversation, Message, MessageRole, MessageStatus
from domain.run import Run, RunEvent, SendOptions, Started


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is committed together when a run begins: messages, run, event 1, and the conversation with its new leaf."""

    conversation: Conversation
    question: Message
    answer: Message
    run: Run
    started: RunEvent


def ask(
    conversation: Conversation, parent: Message | None, content: str, *, message_id: UUID, now: datetime
) -> Message:
    """Returns the user's turn that follows the parent, or begins the conversation where there is none."""
    return Message(
        message_id=message_id,
        conversation_id=conversation.conversation_id,
        parent_message_id=parent.message_id if parent else None,
        depth=parent.depth + 1 if parent else 1,
        role=MessageRole.USER,
        content=content,
        status=MessageStatus.COMPLETE,
        create_time=now,
    )


def begin(
    conversation: Conversation,
    question: Message,
    options: SendOptions,
    *,
    run_id: UUID,
    message_id: UUID,
    model: str,
    owner: UUID,
    now: datetime,
) -> Beginning:
    """Returns the beginning of the run that makes an answer to the question, under the given ids."""
    answer = Message(
        message_id=message_id,
        conversation_id=conversation.conversation_id,
        parent_message_id=question.message_id,
        depth=question.depth + 1,
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
        message_id=message_id,
        model=model,
        options=options,
        create_time=now,
        owner=owner,
    )
    body = Started(conversation.conversation_id, question.message_id, message_id, model)
    started = RunEvent(conversation.workspace_id, run_id, 1, 1, now, body)
    conversation = replace(conversation, leaf_message_id=message_id, update_time=now)
    return Beginning(conversation, question, answer, run, started)

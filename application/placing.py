"""Where an answer goes in the tree of a conversation's messages."""

from dataclasses import dataclass
from uuid import UUID

from application.ports.clock import Clock
from application.ports.unit_of_work import UnitOfWork
from domain.beginning import ask
from domain.conversation import Conversation, Message
from domain.identity import Caller
from domain.prompt import check_fits
from domain.run import Question, Regeneration


@dataclass(frozen=True, slots=True)
class Place:
    """The question to answer, in its conversation, whose row is locked. A new question is not stored yet."""

    conversation: Conversation
    question: Message
    is_new: bool


async def below_new_question(work: UnitOfWork, caller: Caller, question: Question, *, clock: Clock) -> Place:
    """Puts the question at the end of the branch in use, or where else it says.

    Raises ConversationNotFound, MessageNotFound, InvalidField, RunInProgress.
    """
    conversation = await work.conversations.lock(question.conversation_id, caller)
    parent_id = await _parent_id(work, conversation, question)
    parent = await _get(work, conversation, parent_id) if parent_id else None
    if parent:
        parent.check_is_written()
    asked = ask(conversation, parent, question.content, message_id=clock.new_id(), now=clock.now())
    return Place(conversation, asked, is_new=True)


async def beside_answer(work: UnitOfWork, caller: Caller, regeneration: Regeneration, *, budget: int) -> Place:
    """Finds the question of an answer that is to be made anew, by a model of this prompt budget.

    Raises MessageNotFound, ConversationNotFound, InvalidField, RunInProgress, PromptTooLong.
    """
    answer = await work.messages.find(regeneration.message_id, caller)
    question_id = answer.question_id()
    answer.check_is_written()
    conversation = await work.conversations.lock(answer.conversation_id, caller)
    question = await _get(work, conversation, question_id)
    check_fits(question.content, budget, field="options.model")
    return Place(conversation, question, is_new=False)


async def _parent_id(work: UnitOfWork, conversation: Conversation, question: Question) -> UUID | None:
    if question.edited_message_id is None:
        return question.parent_message_id or conversation.leaf_message_id
    edited = await _get(work, conversation, question.edited_message_id)
    edited.check_is_question()
    return edited.parent_message_id


async def _get(work: UnitOfWork, conversation: Conversation, message_id: UUID) -> Message:
    return await work.messages.get(conversation.workspace_id, conversation.conversation_id, message_id)

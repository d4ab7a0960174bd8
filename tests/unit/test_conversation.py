"""Conversations and messages by themselves."""

from datetime import timedelta

import pytest

from domain.conversation import ConversationChange, ConversationDraft, MessageStatus
from domain.errors import InvalidField, RunInProgress
from tests.builders import NOW, a_conversation, a_message, an_answer

LATER = NOW + timedelta(hours=1)


def test_a_message_that_is_being_written_is_told_with_its_run() -> None:
    answer = an_answer(a_conversation())
    with pytest.raises(RunInProgress) as refusal:
        answer.check_is_written()
    assert refusal.value.metadata == {"run_id": str(answer.run_id)}


@pytest.mark.parametrize("status", [status for status in MessageStatus if status is not MessageStatus.STREAMING])
def test_a_message_that_is_final_is_written(status: MessageStatus) -> None:
    an_answer(a_conversation(), status=status).check_is_written()


def test_a_user_s_message_is_written() -> None:
    a_message(a_conversation()).check_is_written()


def test_an_answer_names_its_question() -> None:
    conversation = a_conversation()
    question = a_message(conversation)
    assert an_answer(conversation, question).question_id() == question.message_id


def test_a_question_is_no_answer() -> None:
    conversation = a_conversation()
    with pytest.raises(InvalidField, match="message_id"):
        a_message(conversation, an_answer(conversation)).question_id()


def test_an_answer_is_no_question() -> None:
    with pytest.raises(InvalidField, match="edited_message_id"):
        an_answer(a_conversation()).check_is_question()


def test_a_change_replaces_the_fields_it_names() -> None:
    changed = a_conversation().updated(ConversationChange(title="", metadata={"a": "b"}), LATER)
    assert (changed.title, changed.metadata, changed.update_time) == ("", {"a": "b"}, LATER)


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    conversation = a_conversation()
    changed = conversation.updated(ConversationChange(), LATER)
    assert (changed.title, changed.metadata) == (conversation.title, conversation.metadata)


@pytest.mark.parametrize("made", [ConversationDraft, ConversationChange])
def test_a_title_has_at_most_200_characters(made: type[ConversationDraft] | type[ConversationChange]) -> None:
    made(title="x" * 200)
    with pytest.raises(InvalidField, match="title must have at most 200"):
        made(title="x" * 201)


@pytest.mark.parametrize("made", [ConversationDraft, ConversationChange])
@pytest.mark.parametrize(
    ("metadata", "rule"),
    [
        ({str(number): "" for number in range(17)}, "metadata must have at most 16 entries"),
        ({"": "x"}, "keys must be 1 to 64"),
        ({"x" * 65: ""}, "keys must be 1 to 64"),
        ({"Team": "x"}, "keys must be 1 to 64"),
        ({"a\n": "x"}, "keys must be 1 to 64"),
        ({"team": "x" * 513}, r"metadata\[team\] must have at most 512"),
        ({"team": "\x00"}, r"metadata\[team\] must not hold NUL"),
    ],
)
def test_metadata_is_bounded(
    made: type[ConversationDraft] | type[ConversationChange], metadata: dict[str, str], rule: str
) -> None:
    with pytest.raises(InvalidField, match=rule):
        made(metadata=metadata)


def test_the_largest_metadata_is_let_through() -> None:
    ConversationDraft(metadata={f"{number:_<64}": "x" * 512 for number in range(16)})


@pytest.mark.parametrize("request_id", ["x" * 256, "a b", "\u00e9"])
def test_a_draft_s_request_id_is_bounded(request_id: str) -> None:
    with pytest.raises(InvalidField, match="request_id"):
        ConversationDraft(request_id=request_id)

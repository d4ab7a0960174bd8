"""Between proto messages and domain objects, nothing is lost and nothing gets in unchecked."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from application.conversations import PAGE_BYTES, PAGE_SIZE_LIMIT
from chatback.v1 import chat_service_pb2, conversation_pb2, conversation_service_pb2, run_pb2, user_pb2
from domain.conversation import MessageRole, MessageStatus, Usage
from domain.errors import AssistantNotFound, ChatBackError, CollectionNotFound, InvalidField
from domain.identity import Role, Tokens
from domain.model import Model
from domain.run import (
    ANSWER_LIMIT,
    AttemptReset,
    Cancelled,
    Completed,
    EventBody,
    Failed,
    FinishReason,
    RunState,
    Started,
    TextDelta,
)
from entrypoints.grpc import mapping
from tests.builders import NOW, a_conversation, a_message, a_run, a_user, an_answer, an_event, new_id

SendOptions = chat_service_pb2.SendOptions
RECEIVED_BY_DEFAULT = 4 << 20
"""What gRPC clients receive at most, in bytes, unless they are told otherwise."""
UpdateRequest = conversation_service_pb2.UpdateConversationRequest


def send_request(**fields: Any) -> chat_service_pb2.SendMessageRequest:
    return chat_service_pb2.SendMessageRequest(**{"conversation_id": str(new_id()), "content": "Why?", **fields})


def regenerate_request(**fields: Any) -> chat_service_pb2.RegenerateMessageRequest:
    return chat_service_pb2.RegenerateMessageRequest(**{"message_id": str(new_id()), **fields})


def create_request(**fields: Any) -> conversation_service_pb2.CreateConversationRequest:
    return conversation_service_pb2.CreateConversationRequest(**fields)


# Out


def test_a_moment_keeps_its_microseconds() -> None:
    assert mapping.timestamp(NOW).ToDatetime(UTC) == NOW == datetime(2026, 3, 4, 5, 6, 7, 891_234, UTC)


@pytest.mark.parametrize("role", Role)
def test_a_user_is_shown_without_secrets(role: Role) -> None:
    user = a_user(role=role)
    proto = mapping.user_to_proto(user)
    assert (proto.user_id, proto.workspace_id, proto.email) == (str(user.user_id), str(user.workspace_id), user.email)
    assert user_pb2.Role.Name(proto.role) == f"ROLE_{role}"


def test_tokens_are_shown_with_their_expiry() -> None:
    later = NOW + timedelta(days=30)
    proto = mapping.tokens_to_proto(Tokens("access", NOW, "refresh", later))
    assert (proto.access_token, proto.refresh_token) == ("access", "refresh")
    assert (proto.access_expire_time.ToDatetime(UTC), proto.refresh_expire_time.ToDatetime(UTC)) == (NOW, later)


def test_a_model_is_shown() -> None:
    proto = mapping.model_to_proto(Model("small", 8192, is_default=True))
    assert (proto.name, proto.context_window_tokens, proto.is_default) == ("small", 8192, True)
    assert list(proto.capabilities) == ["chat"]


def test_a_conversation_is_shown() -> None:
    conversation = a_conversation(leaf_message_id=new_id())
    proto = mapping.conversation_to_proto(conversation)
    assert (proto.title, dict(proto.metadata)) == ("Weather", {"team": "sky"})
    assert proto.current_leaf_message_id == str(conversation.leaf_message_id)


def test_a_conversation_without_messages_has_no_leaf() -> None:
    assert mapping.conversation_to_proto(a_conversation()).current_leaf_message_id == ""


@pytest.mark.parametrize("role", MessageRole)
@pytest.mark.parametrize("status", MessageStatus)
def test_a_message_shows_role_and_status(role: MessageRole, status: MessageStatus) -> None:
    proto = mapping.message_to_proto(a_message(a_conversation(), role=role, status=status))
    assert conversation_pb2.MessageRole.Name(proto.role) == f"MESSAGE_ROLE_{role}"
    assert conversation_pb2.MessageStatus.Name(proto.status) == f"MESSAGE_STATUS_{status}"


def test_an_answer_is_shown_with_its_making() -> None:
    conversation = a_conversation()
    question = a_message(conversation)
    answer = an_answer(conversation, question, content="No.", usage=Usage(7, 3))
    proto = mapping.message_to_proto(answer)
    assert (proto.parent_message_id, proto.run_id) == (str(question.message_id), str(answer.run_id))
    assert (proto.content, proto.model) == ("No.", "model-1")
    assert (proto.usage.input_tokens, proto.usage.output_tokens) == (7, 3)


def test_a_first_message_has_no_parent_and_no_run() -> None:
    proto = mapping.message_to_proto(a_message(a_conversation()))
    assert (proto.parent_message_id, proto.run_id) == ("", "")


@pytest.mark.parametrize("state", RunState)
def test_a_run_shows_its_state(state: RunState) -> None:
    conversation = a_conversation()
    proto = mapping.run_to_proto(a_run(conversation, an_answer(conversation), state=state, attempt=2, last_seq=9))
    assert run_pb2.RunState.Name(proto.state) == f"RUN_STATE_{state}"
    assert (proto.attempt, proto.last_seq) == (2, 9)


def test_a_run_that_goes_on_has_neither_error_nor_end() -> None:
    conversation = a_conversation()
    proto = mapping.run_to_proto(a_run(conversation, an_answer(conversation)))
    assert not proto.HasField("error")
    assert not proto.HasField("end_time")


def test_a_failed_run_shows_why_and_when() -> None:
    conversation = a_conversation()
    run = a_run(conversation, an_answer(conversation), failure=Failed("MODEL_STALLED", "silence"), end_time=NOW)
    proto = mapping.run_to_proto(run)
    assert (proto.error.reason, proto.error.message) == ("MODEL_STALLED", "silence")
    assert proto.end_time.ToDatetime(UTC) == NOW


def event_of(body: EventBody) -> run_pb2.RunEvent:
    conversation = a_conversation()
    event = an_event(a_run(conversation, an_answer(conversation), attempt=2), 7, body)
    return mapping.with_event(chat_service_pb2.SendMessageResponse(), event).event


ANSWER = an_answer(a_conversation(), content="No.", usage=Usage(7, 3))
BODIES: dict[str, EventBody] = {
    "started": Started(new_id(), new_id(), new_id(), "small"),
    "text_delta": TextDelta("No"),
    "attempt_reset": AttemptReset("REPLICA_LOST"),
    "completed": Completed(ANSWER, FinishReason.STOP),
    "failed": Failed("MODEL_STALLED", "silence"),
    "cancelled": Cancelled(),
}


@pytest.mark.parametrize(("case", "body"), BODIES.items())
def test_an_event_has_its_one_case(case: str, body: EventBody) -> None:
    assert event_of(body).WhichOneof("event") == case


@pytest.mark.parametrize("body", BODIES.values())
def test_an_event_shows_its_place(body: EventBody) -> None:
    proto = event_of(body)
    assert (proto.seq, proto.attempt, proto.create_time.ToDatetime(UTC)) == (7, 2, NOW)


def test_every_kind_of_event_is_mapped() -> None:
    assert {type(body) for body in BODIES.values()} == set(EventBody.__args__)


def test_started_names_what_was_stored() -> None:
    body = BODIES["started"]
    assert isinstance(body, Started)
    proto = event_of(body).started
    assert proto.conversation_id == str(body.conversation_id)
    assert proto.user_message_id == str(body.user_message_id)
    assert (proto.message_id, proto.model) == (str(body.message_id), "small")


def test_a_delta_keeps_its_text() -> None:
    assert event_of(TextDelta("Caf\u00e9 \U0001f327\r\n")).text_delta.text == "Caf\u00e9 \U0001f327\r\n"


def test_the_longest_answer_fits_what_a_client_receives_by_default() -> None:
    longest = an_answer(
        a_conversation(),
        a_message(a_conversation()),
        content="\U0001f327" * ANSWER_LIMIT,
        model="\U0001f327" * 200,
        usage=Usage(2**31 - 1, 2**31 - 1),
    )
    event = an_event(
        a_run(a_conversation(), longest, attempt=2**31 - 1), 2**31 - 1, Completed(longest, FinishReason.STOP)
    )
    assert mapping.with_event(chat_service_pb2.SendMessageResponse(), event).ByteSize() < RECEIVED_BY_DEFAULT


def test_the_longest_page_of_messages_fits_what_a_client_receives_by_default() -> None:
    # As many as a page may have, with as much text, and one more byte of it in each to be on the safe side.
    share = "x" * (PAGE_BYTES // PAGE_SIZE_LIMIT + 1)
    message = an_answer(a_conversation(), a_message(a_conversation()), content=share, model="\U0001f327" * 200)
    page = conversation_service_pb2.ListMessagesResponse(
        messages=[mapping.message_to_proto(message)] * PAGE_SIZE_LIMIT, next_page_token="x" * 1000
    )
    assert page.ByteSize() < RECEIVED_BY_DEFAULT


def test_the_longest_message_fits_what_a_client_receives_by_default_as_a_page_of_its_own() -> None:
    message = an_answer(a_conversation(), a_message(a_conversation()), content="\U0001f327" * ANSWER_LIMIT)
    page = conversation_service_pb2.ListMessagesResponse(
        messages=[mapping.message_to_proto(message)], next_page_token="x" * 1000
    )
    assert page.ByteSize() < RECEIVED_BY_DEFAULT


def test_the_longest_page_of_conversations_fits_what_a_client_receives_by_default() -> None:
    metadata = {f"{number:064}": "\U0001f327" * 512 for number in range(16)}
    conversation = a_conversation(title="\U0001f327" * 200, metadata=metadata, leaf_message_id=new_id())
    page = conversation_service_pb2.ListConversationsResponse(
        conversations=[mapping.conversation_to_proto(conversation)] * PAGE_SIZE_LIMIT, next_page_token="x" * 1000
    )
    assert page.ByteSize() < RECEIVED_BY_DEFAULT


@pytest.mark.parametrize("reason", FinishReason)
def test_completed_holds_message_usage_and_reason(reason: FinishReason) -> None:
    proto = event_of(Completed(ANSWER, reason)).completed
    assert proto.message == mapping.message_to_proto(ANSWER)
    assert proto.usage == proto.message.usage
    assert run_pb2.FinishReason.Name(proto.finish_reason) == f"FINISH_REASON_{reason}"


def test_failed_says_why() -> None:
    proto = event_of(Failed("MODEL_STALLED", "silence")).failed
    assert (proto.reason, proto.message) == ("MODEL_STALLED", "silence")


# In


def test_a_question_is_read() -> None:
    parent = new_id()
    request = send_request(request_id="r", parent_message_id=str(parent))
    question = mapping.question(request)
    assert (str(question.conversation_id), question.content) == (request.conversation_id, "Why?")
    assert (question.request_id, question.parent_message_id) == ("r", parent)


def test_an_edit_is_read() -> None:
    edited = new_id()
    question = mapping.question(send_request(edited_message_id=str(edited)))
    assert (question.edited_message_id, question.parent_message_id) == (edited, None)


def test_a_regeneration_is_read() -> None:
    request = regenerate_request(request_id="r", options=SendOptions(model="large"))
    regeneration = mapping.regeneration(request)
    assert str(regeneration.message_id) == request.message_id
    assert (regeneration.request_id, regeneration.options.model) == ("r", "large")
    assert regeneration.digest == mapping.digest(request) != b""


def test_a_choice_that_is_not_made_is_none() -> None:
    options = mapping.send_options(SendOptions())
    assert (options.temperature, options.max_output_tokens, options.cancel_on_disconnect) == (None, None, False)


def test_zero_is_a_choice() -> None:
    assert mapping.send_options(SendOptions(temperature=0)).temperature == 0


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: mapping.question(send_request(conversation_id="")), "conversation_id"),
        (lambda: mapping.question(send_request(conversation_id="x")), "conversation_id"),
        (lambda: mapping.question(send_request(parent_message_id="x")), "parent_message_id"),
        (lambda: mapping.question(send_request(edited_message_id="x")), "edited_message_id"),
        (lambda: mapping.question(send_request(content="")), "content"),
        (lambda: mapping.question(send_request(request_id="a b")), "request_id"),
        (lambda: mapping.regeneration(regenerate_request(message_id="")), "message_id"),
        (lambda: mapping.regeneration(regenerate_request(request_id="a b")), "request_id"),
        (lambda: mapping.regeneration(regenerate_request(options=SendOptions(temperature=3))), "options.temperature"),
        (lambda: mapping.send_options(SendOptions(temperature=2.1)), "options.temperature"),
        (lambda: mapping.send_options(SendOptions(max_output_tokens=0)), "options.max_output_tokens"),
        (lambda: mapping.send_options(SendOptions(max_passages=51)), "options.max_passages"),
        (lambda: mapping.send_options(SendOptions(max_passages=-1)), "options.max_passages"),
        (lambda: mapping.send_options(SendOptions(collection_ids=["x"])), "options.collection_ids"),
        (lambda: mapping.send_options(SendOptions(collection_ids=[str(new_id())] * 21)), "options.collection_ids"),
        (lambda: mapping.conversation_draft(create_request(title="x" * 201)), "title"),
        (lambda: mapping.conversation_draft(create_request(metadata={"": ""})), "metadata"),
        (lambda: mapping.conversation_draft(create_request(collection_ids=["x"])), "collection_ids"),
        (lambda: mapping.conversation_change(UpdateRequest(update_mask=FieldMask(paths=["*"]))), "update_mask"),
        (lambda: mapping.conversation_change(UpdateRequest(update_mask=FieldMask(paths=["user_id"]))), "update_mask"),
    ],
)
def test_a_field_that_is_wrong_is_named(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidField) as refusal:
        make()
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: mapping.send_options(SendOptions(collection_ids=[str(new_id())])), CollectionNotFound),
        (lambda: mapping.conversation_draft(create_request(collection_ids=[str(new_id())])), CollectionNotFound),
        (lambda: mapping.conversation_change(UpdateRequest(collection_ids=[str(new_id())])), CollectionNotFound),
        (lambda: mapping.conversation_draft(create_request(assistant_id="anyone")), AssistantNotFound),
    ],
)
def test_what_does_not_exist_yet_is_not_found(make: Callable[[], object], error: type[ChatBackError]) -> None:
    with pytest.raises(error):
        make()


def test_a_draft_is_read() -> None:
    draft = mapping.conversation_draft(create_request(title="Rain", metadata={"a": "b"}, request_id="r"))
    assert (draft.title, draft.metadata, draft.request_id) == ("Rain", {"a": "b"}, "r")


def test_without_a_mask_what_is_not_empty_is_changed() -> None:
    change = mapping.conversation_change(UpdateRequest(title="Snow"))
    assert (change.title, change.metadata) == ("Snow", None)


def test_a_mask_clears_what_is_empty() -> None:
    change = mapping.conversation_change(UpdateRequest(update_mask=FieldMask(paths=["title", "metadata"])))
    assert (change.title, change.metadata) == ("", {})


def test_what_a_mask_does_not_name_is_left_alone() -> None:
    request = UpdateRequest(title="Snow", metadata={"a": "b"}, update_mask=FieldMask(paths=["metadata"]))
    change = mapping.conversation_change(request)
    assert (change.title, change.metadata) == (None, {"a": "b"})


# Digests


def test_a_repeated_request_has_the_same_digest() -> None:
    fields = {"conversation_id": str(new_id()), "options": SendOptions(temperature=0.5)}
    first, again = send_request(request_id="1", **fields), send_request(request_id="2", **fields)
    assert mapping.digest(first) == mapping.digest(again) != b""


def test_metadata_in_another_order_has_the_same_digest() -> None:
    one = create_request(request_id="r", metadata={"a": "1", "b": "2"})
    other = create_request(request_id="r", metadata={"b": "2", "a": "1"})
    assert mapping.digest(one) == mapping.digest(other)


@pytest.mark.parametrize(
    "changes", [{"content": "How?"}, {"options": SendOptions(temperature=0)}, {"parent_message_id": str(new_id())}]
)
def test_another_request_has_another_digest(changes: dict[str, Any]) -> None:
    request = send_request(request_id="r")
    other = chat_service_pb2.SendMessageRequest()
    other.CopyFrom(request)
    other.MergeFrom(chat_service_pb2.SendMessageRequest(**changes))
    assert mapping.digest(request) != mapping.digest(other)


def test_methods_do_not_share_digests() -> None:
    empty = [
        mapping.digest(request(request_id="r"))
        for request in (
            conversation_service_pb2.CreateConversationRequest,
            chat_service_pb2.SendMessageRequest,
            chat_service_pb2.RegenerateMessageRequest,
        )
    ]
    assert len(set(empty)) == 3


def test_a_request_without_an_id_needs_no_digest() -> None:
    assert mapping.digest(send_request()) == b""

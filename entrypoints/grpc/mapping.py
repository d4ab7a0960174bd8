"""Between proto messages and domain objects: pure functions, one for each shape."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from chatback.v1 import (
    chat_service_pb2,
    conversation_pb2,
    conversation_service_pb2,
    model_pb2,
    run_pb2,
    user_pb2,
)
from domain import bounds
from domain.conversation import Conversation, ConversationChange, ConversationDraft, Message, Usage
from domain.errors import AssistantNotFound, CollectionNotFound, InvalidField
from domain.identity import Tokens, User
from domain.model import Model
from domain.run import (
    AttemptReset,
    Cancelled,
    Completed,
    EventBody,
    Failed,
    Question,
    Regeneration,
    Run,
    RunEvent,
    SendOptions,
    Started,
    TextDelta,
)

R = TypeVar(
    "R",
    chat_service_pb2.SendMessageResponse,
    chat_service_pb2.RegenerateMessageResponse,
    chat_service_pb2.StreamRunResponse,
)
Repeatable: TypeAlias = (
    chat_service_pb2.SendMessageRequest
    | chat_service_pb2.RegenerateMessageRequest
    | conversation_service_pb2.CreateConversationRequest
)

UPDATABLE = ("title", "metadata", "collection_ids")


def timestamp(moment: datetime) -> Timestamp:
    """Returns the moment to the microsecond."""
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * 1000)


def user_to_proto(user: User) -> user_pb2.User:
    """Leaves out everything secret."""
    return user_pb2.User(
        user_id=str(user.user_id),
        workspace_id=str(user.workspace_id),
        email=user.email,
        display_name=user.display_name,
        role=user_pb2.Role.Value(f"ROLE_{user.role}"),
        create_time=timestamp(user.create_time),
    )


def tokens_to_proto(tokens: Tokens) -> user_pb2.Tokens:
    """Both tokens with their expiry."""
    return user_pb2.Tokens(
        access_token=tokens.access_token,
        access_expire_time=timestamp(tokens.access_expire_time),
        refresh_token=tokens.refresh_token,
        refresh_expire_time=timestamp(tokens.refresh_expire_time),
    )


def model_to_proto(model: Model) -> model_pb2.Model:
    """A configured model."""
    return model_pb2.Model(
        name=model.name,
        context_window_tokens=model.context_tokens,
        is_default=model.is_default,
        capabilities=model.capabilities,
    )


def conversation_to_proto(conversation: Conversation) -> conversation_pb2.Conversation:
    """A conversation without its messages."""
    return conversation_pb2.Conversation(
        conversation_id=str(conversation.conversation_id),
        title=conversation.title,
        metadata=conversation.metadata,
        current_leaf_message_id=text_of(conversation.leaf_message_id),
        create_time=timestamp(conversation.create_time),
        update_time=timestamp(conversation.update_time),
    )


def message_to_proto(message: Message) -> conversation_pb2.Message:
    """One turn."""
    return conversation_pb2.Message(
        message_id=str(message.message_id),
        conversation_id=str(message.conversation_id),
        parent_message_id=text_of(message.parent_message_id),
        content=message.content,
        role=conversation_pb2.MessageRole.Value(f"MESSAGE_ROLE_{message.role}"),
        status=conversation_pb2.MessageStatus.Value(f"MESSAGE_STATUS_{message.status}"),
        usage=usage_to_proto(message.usage),
        model=message.model,
        run_id=text_of(message.run_id),
        create_time=timestamp(message.create_time),
    )


def usage_to_proto(usage: Usage) -> conversation_pb2.Usage:
    """Token counts."""
    return conversation_pb2.Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)


def run_to_proto(run: Run) -> run_pb2.Run:
    """A run as it stands in the log."""
    return run_pb2.Run(
        run_id=str(run.run_id),
        conversation_id=str(run.conversation_id),
        message_id=str(run.message_id),
        state=run_pb2.RunState.Value(f"RUN_STATE_{run.state}"),
        attempt=run.attempt,
        last_seq=run.last_seq,
        usage=usage_to_proto(run.usage),
        model=run.model,
        create_time=timestamp(run.create_time),
        error=_failed(run.failure) if run.failure else None,
        end_time=timestamp(run.end_time) if run.end_time else None,
    )


def with_event(response: R, event: RunEvent) -> R:
    """Returns the response with the event in it, equal for every watcher. Filled in place: this is the busiest path."""
    proto, moment = response.event, event.create_time
    proto.run_id, proto.seq, proto.attempt = str(event.run_id), event.seq, event.attempt
    proto.create_time.seconds, proto.create_time.nanos = int(moment.timestamp()), moment.microsecond * 1000
    _fill_case(proto, event.body)
    return response


def _fill_case(proto: run_pb2.RunEvent, body: EventBody) -> None:
    match body:
        case TextDelta(text):
            proto.text_delta.text = text
        case Started():
            proto.started.CopyFrom(_started(body))
        case Completed():
            proto.completed.CopyFrom(_completed(body))
        case Failed():
            proto.failed.CopyFrom(_failed(body))
        case Cancelled():
            proto.cancelled.SetInParent()
        case AttemptReset(reason):
            proto.attempt_reset.reason = reason


def _started(body: Started) -> run_pb2.RunStarted:
    return run_pb2.RunStarted(
        conversation_id=str(body.conversation_id),
        user_message_id=str(body.user_message_id),
        message_id=str(body.message_id),
        model=body.model,
    )


def _completed(body: Completed) -> run_pb2.RunCompleted:
    return run_pb2.RunCompleted(
        message=message_to_proto(body.message),
        usage=usage_to_proto(body.message.usage),
        finish_reason=run_pb2.FinishReason.Value(f"FINISH_REASON_{body.finish_reason}"),
    )


def _failed(body: Failed) -> run_pb2.RunFailure:
    return run_pb2.RunFailure(reason=body.reason, message=body.message)


def question(request: chat_service_pb2.SendMessageRequest) -> Question:
    """What to answer and how."""
    return Question(
        conversation_id=bounds.identifier("conversation_id", request.conversation_id),
        content=request.content,
        request_id=request.request_id,
        digest=digest(request),
        parent_message_id=bounds.optional_identifier("parent_message_id", request.parent_message_id),
        edited_message_id=bounds.optional_identifier("edited_message_id", request.edited_message_id),
        options=send_options(request.options),
    )


def regeneration(request: chat_service_pb2.RegenerateMessageRequest) -> Regeneration:
    """Which answer to make anew and how."""
    return Regeneration(
        message_id=bounds.identifier("message_id", request.message_id),
        request_id=request.request_id,
        digest=digest(request),
        options=send_options(request.options),
    )


def send_options(options: chat_service_pb2.SendOptions) -> SendOptions:
    """Absent choices are None, zero is a value."""
    no_collections("options.collection_ids", options.collection_ids)
    bounds.number("options.max_passages", options.max_passages, at_least=0, at_most=50)
    return SendOptions(
        model=options.model,
        temperature=options.temperature if options.HasField("temperature") else None,
        max_output_tokens=options.max_output_tokens if options.HasField("max_output_tokens") else None,
        cancel_on_disconnect=options.cancel_on_disconnect,
    )


def conversation_draft(request: conversation_service_pb2.CreateConversationRequest) -> ConversationDraft:
    """A new conversation as its owner wants it."""
    no_collections("collection_ids", request.collection_ids)
    if request.assistant_id:
        raise AssistantNotFound
    return ConversationDraft(request.title, dict(request.metadata), request.request_id)


def conversation_change(request: conversation_service_pb2.UpdateConversationRequest) -> ConversationChange:
    """The fields of the mask; without a mask those that are not empty (AIP-134)."""
    paths = request.update_mask.paths or [name for name in UPDATABLE if getattr(request, name)]
    for path in paths:
        if path not in UPDATABLE:
            raise InvalidField("update_mask", f"may name {', '.join(UPDATABLE)} only")
    no_collections("collection_ids", request.collection_ids)
    return ConversationChange(
        title=request.title if "title" in paths else None,
        metadata=dict(request.metadata) if "metadata" in paths else None,
    )


def no_collections(field: str, ids: Sequence[str]) -> None:
    """Collections come with the knowledge service; until then every id names a missing one."""
    bounds.at_most(field, ids, 20)
    for value in ids:
        bounds.identifier(field, value)
        raise CollectionNotFound


def digest(request: Repeatable) -> bytes:
    """Returns the SHA-256 of method and content without request_id: equal for repeated requests."""
    if not request.request_id:
        return b""
    plain = type(request)()
    plain.CopyFrom(request)  # type: ignore[arg-type]  # type(request) is the same on both sides
    plain.ClearField("request_id")
    return hashlib.sha256(plain.DESCRIPTOR.full_name.encode() + plain.SerializeToString(deterministic=True)).digest()


def text_of(identifier: UUID | None) -> str:
    """Returns an id as callers see it, empty for none."""
    return str(identifier) if identifier else ""

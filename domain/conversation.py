"""Conversations and the tree of messages in each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from domain import bounds
from domain.errors import InvalidField, RunInProgress

CONTENT_LIMIT = 200_000
_METADATA_KEY = re.compile(r"[a-z0-9_.-]{1,64}")


class MessageRole(StrEnum):
    """Who speaks."""

    USER = "USER"
    ASSISTANT = "ASSISTANT"
    TOOL = "TOOL"


class MessageStatus(StrEnum):
    """How far a message is; all but STREAMING are final."""

    COMPLETE = "COMPLETE"
    STREAMING = "STREAMING"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; zero where it did not."""

    input_tokens: int = 0
    output_tokens: int = 0


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `depth` counts from 1 at a branch's root, so that a branch has an order."""

    message_id: UUID
    conversation_id: UUID
    parent_message_id: UUID | None
    depth: int
    role: MessageRole
    content: str
    status: MessageStatus
    create_time: datetime
    usage: Usage = NO_USAGE
    model: str = ""
    run_id: UUID | None = None

    def check_is_written(self) -> None:
        """Refuses with RunInProgress while this message is still being written."""
        if self.status is MessageStatus.STREAMING and self.run_id is not None:
            raise RunInProgress(self.run_id)

    def check_is_question(self) -> None:
        """Refuses what the user did not say as the message to be edited."""
        if self.role is not MessageRole.USER:
            raise InvalidField("edited_message_id", "must name a message of the user")

    def question_id(self) -> UUID:
        """Returns what this message answers, for another answer to it. Raises InvalidField if it is no answer."""
        if self.role is not MessageRole.ASSISTANT or self.parent_message_id is None:
            raise InvalidField("message_id", "must name an answer")
        return self.parent_message_id


@dataclass(frozen=True, slots=True)
class Conversation:
    """A tree of messages, private to its owner. `leaf_message_id` ends the branch that was written to last."""

    conversation_id: UUID
    workspace_id: UUID
    user_id: UUID
    title: str
    metadata: Mapping[str, str]
    leaf_message_id: UUID | None
    create_time: datetime
    update_time: datetime

    def updated(self, change: "ConversationChange", now: datetime) -> "Conversation":
        """Returns the conversation with the fields that the change names."""
        title = self.title if change.title is None else change.title
        metadata = self.metadata if change.metadata is None else change.metadata
        return replace(self, title=title, metadata=metadata, update_time=now)


@dataclass(frozen=True, slots=True)
class ConversationDraft:
    """What a caller may say of a new conversation."""

    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""

    def __post_init__(self) -> None:
        bounds.text("title", self.title, at_most=200)
        check_metadata(self.metadata)
        bounds.visible("request_id", self.request_id, at_most=255)


@dataclass(frozen=True, slots=True)
class ConversationChange:
    """New values of a conversation's fields; None leaves a field as it is."""

    title: str | None = None
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        bounds.text("title", self.title or "", at_most=200)
        check_metadata(self.metadata or {})


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted. `after` is the keyset that a page token carried, None at the start."""

    size: int
    after: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class MessagePage:
    """A part of a list of messages, and whether the list goes on."""

    messages: Sequence[Message]
    has_more: bool


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuses more than 16 entries, keys that are not 1-64 of [a-z0-9_.-] and values past 512 characters."""
    bounds.at_most("metadata", metadata, 16)
    for key, value in metadata.items():
        if not _METADATA_KEY.fullmatch(key):
            raise InvalidField("metadata", "keys must be 1 to 64 of a-z, 0-9, '_', '.' and '-'")
        bounds.text(f"metadata[{key}]", value, at_most=512)

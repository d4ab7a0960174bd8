"""What is kept in the database, one protocol for each aggregate.

`owner` is part of every query: another user's object and a missing one are both not found.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from domain.conversation import Conversation, Message, MessagePage, PageRequest
from domain.identity import Caller, Session, User
from domain.run import Run, RunEvent


class Users(Protocol):
    """Users and the hashes of their passwords. E-mail is unique in the deployment."""

    async def add(self, user: User, password_hash: str) -> None:
        """Stores the user, and its workspace where that is new. Raises EmailTaken."""
        ...

    async def get(self, user_id: UUID) -> User:
        """Raises UserNotFound."""
        ...

    async def credentials(self, email: str) -> tuple[User, str] | None:
        """Returns the user of this e-mail and the hash, or None."""
        ...

    async def password_hash(self, user_id: UUID) -> str | None:
        """Returns the hash, which nobody else changes until the transaction ends, or None for a missing user."""
        ...

    async def set_password_hash(self, user_id: UUID, password_hash: str) -> None:
        """Replaces the hash."""
        ...


class Sessions(Protocol):
    """Sign-ins. Ending one also writes the revocation that every replica reads."""

    async def add(self, session: Session) -> None:
        """Stores a new session."""
        ...

    async def lock(self, session_id: UUID) -> Session | None:
        """Returns the session with its row locked, so that one refresh at a time decides; None where there is none."""
        ...

    async def save(self, session: Session) -> None:
        """Stores generation and times of a locked session."""
        ...

    async def end(self, session_id: UUID, now: datetime) -> None:
        """Ends the session; ended ones stay as they are."""
        ...

    async def end_others(self, user_id: UUID, kept: UUID, now: datetime) -> Sequence[UUID]:
        """Ends the user's other open sessions and returns them."""
        ...

    async def ended_since(self, moment: datetime) -> Sequence[UUID]:
        """Returns the sessions whose end was written after the moment."""
        ...


class Conversations(Protocol):
    """A user's conversations. A deleted one is hidden at once."""

    async def add(self, conversation: Conversation) -> None:
        """Stores a new conversation."""
        ...

    async def get(self, conversation_id: UUID, owner: Caller) -> Conversation:
        """Raises ConversationNotFound."""
        ...

    async def lock(self, conversation_id: UUID, owner: Caller) -> Conversation:
        """Like `get`, with the row locked until the transaction ends."""
        ...

    async def save(self, conversation: Conversation) -> None:
        """Stores title, metadata, leaf and update_time of a locked conversation."""
        ...

    async def list(self, owner: Caller, query: str, page: PageRequest) -> Sequence[Conversation]:
        """Returns up to `page.size` conversations whose title holds `query` in any case, newest activity first.

        `page.after` is [update_time in ISO format, conversation_id] of the last one seen.
        """
        ...

    async def hide(self, conversation_id: UUID, owner: Caller, now: datetime) -> None:
        """Deletes for its owner; rows go when `erase_hidden` finds no run in it. Raises ConversationNotFound."""
        ...

    async def erase_hidden(self) -> int:
        """Erases hidden conversations in which nothing runs, with all that hangs on them; returns how many."""
        ...


class Messages(Protocol):
    """The tree of messages of a conversation; whoever names no owner has shown that the caller owns it."""

    async def add(self, workspace_id: UUID, *messages: Message) -> None:
        """Stores new messages."""
        ...

    async def get(self, workspace_id: UUID, conversation_id: UUID, message_id: UUID) -> Message:
        """Raises MessageNotFound, also for a message of another conversation."""
        ...

    async def find(self, message_id: UUID, owner: Caller) -> Message:
        """Returns a message of any conversation of the owner's. Raises MessageNotFound, also where that is hidden."""
        ...

    async def newest_first(self, workspace_id: UUID, leaf: UUID, max_bytes: int) -> Sequence[Message]:
        """Returns the branch from the leaf towards the root, up to and including the one that passes `max_bytes`."""
        ...

    async def branch(self, workspace_id: UUID, leaf: UUID, page: PageRequest, max_bytes: int) -> MessagePage:
        """Returns up to `page.size` messages of the branch that ends with the leaf, oldest first.

        Fewer where their texts would pass `max_bytes` of UTF-8, but at least one. `page.after` begins with the depth
        of the last one seen.
        """
        ...

    async def tree(self, workspace_id: UUID, conversation_id: UUID, page: PageRequest, max_bytes: int) -> MessagePage:
        """Like `branch`, over all messages of the conversation by depth and id, so that parents come before children.

        `page.after` is [depth, message_id] of the last one seen.
        """
        ...


class Runs(Protocol):
    """Runs and their first event; later events go through the run log."""

    async def add(self, run: Run, started: RunEvent) -> None:
        """Stores a run, and event 1."""
        ...

    async def get(self, run_id: UUID, owner: Caller) -> Run:
        """Raises RunNotFound."""
        ...

    async def request_cancel(self, run_id: UUID, owner: Caller) -> Run:
        """Marks a running run to be cancelled, by whichever replica owns it, and returns it. Raises RunNotFound."""
        ...

    async def running_in(self, conversation_id: UUID, owner: Caller) -> Sequence[Run]:
        """Returns the runs of the conversation that have not ended."""
        ...


class Requests(Protocol):
    """Idempotency records: which call a request_id of a user stood for, kept for 24 hours."""

    async def claim(
        self, caller: Caller, request_id: str, digest: bytes, resource_id: UUID, now: datetime
    ) -> UUID | None:
        """Returns None if the id was free (it now stands for `resource_id`), else the resource it stood for already.

        A rival transaction with the same id waits here until the first one ends. Raises RequestIdReused where the
        digest differs.
        """
        ...

    async def forget_before(self, moment: datetime) -> None:
        """Drops the records made before the moment."""
        ...

"""A user's conversations and the messages in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from application.ports.clock import Clock
from application.ports.token_signer import TokenSigner
from application.ports.unit_of_work import UnitOfWorkFactory
from application.run_engine import RunEngine
from domain import bounds
from domain.conversation import Conversation, ConversationChange, ConversationDraft, Message, PageRequest
from domain.identity import Caller

DEFAULT_PAGE_SIZE = 20
PAGE_SIZE_LIMIT = 100


@dataclass(frozen=True)
class Conversations:
    """Use cases on the caller's own conversations."""

    unit_of_work: UnitOfWorkFactory
    engine: RunEngine
    signer: TokenSigner
    clock: Clock

    async def create(self, caller: Caller, draft: ConversationDraft, digest: bytes) -> Conversation:
        """Stores a new conversation; the same request_id with the same draft returns the first one.

        Raises RequestIdReused.
        """
        now, conversation_id = self.clock.now(), self.clock.new_id()
        conversation = Conversation(
            conversation_id,
            caller.workspace_id,
            caller.user_id,
            draft.title,
            draft.metadata,
            leaf_message_id=None,
            create_time=now,
            update_time=now,
        )
        async with self.unit_of_work() as work:
            if draft.request_id:
                earlier = await work.requests.claim(caller, draft.request_id, digest, conversation_id, now)
                if earlier is not None:
                    return await work.conversations.get(earlier, caller)
            await work.conversations.add(conversation)
            await work.commit()
        return conversation

    async def get(self, caller: Caller, conversation_id: UUID) -> Conversation:
        """Raises ConversationNotFound."""
        async with self.unit_of_work.reading() as work:
            return await work.conversations.get(conversation_id, caller)

    async def update(self, caller: Caller, conversation_id: UUID, change: ConversationChange) -> Conversation:
        """Stores new values of the fields that the change names. Raises ConversationNotFound."""
        async with self.unit_of_work() as work:
            conversation = await work.conversations.lock(conversation_id, caller)
            conversation = conversation.updated(change, self.clock.now())
            await work.conversations.save(conversation)
            await work.commit()
        return conversation

    async def delete(self, caller: Caller, conversation_id: UUID) -> None:
        """Hides the conversation at once and stops its runs; its rows are erased after their end.

        Raises ConversationNotFound.
        """
        async with self.unit_of_work() as work:
            # The lock waits for whoever is just adding a run, so that it is found here.
            await work.conversations.lock(conversation_id, caller)
            running = await work.runs.running_in(conversation_id, caller)
            for run_id in running:
                await work.runs.request_cancel(run_id, caller)
            await work.conversations.hide(conversation_id, caller, self.clock.now())
            await work.commit()
        for run_id in running:
            self.engine.cancel(run_id)

    async def list(
        self, caller: Caller, query: str, page_size: int, page_token: str
    ) -> tuple[Sequence[Conversation], str]:
        """Returns a page, newest activity first, and the token of the next one (empty at the end)."""
        bounds.text("query", query, at_most=200)
        scope = f"conversations {caller.user_id} {query}"
        size = page_size_of(page_size)
        async with self.unit_of_work.reading() as work:
            found = await work.conversations.list(caller, query, PageRequest(size + 1, self._after(scope, page_token)))
        shown = found[:size]
        if len(found) == len(shown):
            return shown, ""
        return shown, self.signer.page_token(scope, [shown[-1].update_time.isoformat(), str(shown[-1].conversation_id)])

    async def list_messages(
        self, caller: Caller, conversation_id: UUID, leaf_message_id: UUID | None, page_size: int, page_token: str
    ) -> tuple[Sequence[Message], str]:
        """Returns a page of one branch, oldest first, and the token of the next one (empty at the end).

        The branch ends with `leaf_message_id`, or with the message that was written last; later pages stay on it.
        Raises ConversationNotFound, MessageNotFound.
        """
        size, scope = page_size_of(page_size), f"messages {caller.user_id} {conversation_id} {leaf_message_id}"
        after = self._after(scope, page_token)
        async with self.unit_of_work.reading() as work:
            conversation = await work.conversations.get(conversation_id, caller)
            leaf = UUID(after[1]) if after else leaf_message_id or conversation.leaf_message_id
            if leaf is None:
                return (), ""
            await work.messages.get(caller.workspace_id, conversation_id, leaf)
            found = await work.messages.branch(caller.workspace_id, leaf, PageRequest(size + 1, after))
        shown = found[:size]
        more = len(found) > size
        return shown, self.signer.page_token(scope, [str(shown[-1].depth), str(leaf)]) if more else ""

    def _after(self, scope: str, page_token: str) -> Sequence[str] | None:
        return self.signer.keyset(scope, page_token) if page_token else None


def page_size_of(requested: int) -> int:
    """Returns the page size: 20 for 0, at most 100. Raises InvalidField for a negative one."""
    bounds.number("page_size", requested, at_least=0, at_most=2**31 - 1)
    return min(requested, PAGE_SIZE_LIMIT) or DEFAULT_PAGE_SIZE

"""A user's conversations and the messages in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from application.ports.clock import Clock
from application.ports.token_signer import TokenSigner
from application.ports.unit_of_work import UnitOfWorkFactory
from application.remote_runs import RemoteRuns
from domain import bounds
from domain.conversation import Conversation, ConversationChange, ConversationDraft, Message, MessagePage, PageRequest
from domain.identity import Caller

DEFAULT_PAGE_SIZE = 20
PAGE_SIZE_LIMIT = 100
PAGE_BYTES = 3_000_000
"""Text on a page of messages, so that the page stays below the 4 MiB that gRPC clients receive by default."""


@dataclass(frozen=True)
class Conversations:
    """Use cases on the caller's own conversations."""

    unit_of_work: UnitOfWorkFactory
    remote: RemoteRuns
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
            for run in running:
                await work.runs.request_cancel(run.run_id, caller)
            await work.conversations.hide(conversation_id, caller, self.clock.now())
            await work.commit()
        for run in running:
            self.remote.cancel(run)

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
        self,
        caller: Caller,
        conversation_id: UUID,
        leaf_message_id: UUID | None,
        page_size: int,
        page_token: str,
        *,
        all_branches: bool = False,
    ) -> tuple[Sequence[Message], str]:
        """Returns a page of one branch, oldest first, and the token of the next one (empty at the end).

        - The branch ends with `leaf_message_id`, or with the message that was written last; later pages stay on it.
        - With `all_branches` the page is one of the whole tree, parents before their children.
        Raises ConversationNotFound, MessageNotFound.
        """
        if all_branches:
            bounds.absent("leaf_message_id", leaf_message_id, beside="all_branches")
            return await self._list_tree(caller, conversation_id, page_size, page_token)
        size, scope = page_size_of(page_size), f"messages {caller.user_id} {conversation_id} {leaf_message_id}"
        after = self._after(scope, page_token)
        async with self.unit_of_work.reading() as work:
            conversation = await work.conversations.get(conversation_id, caller)
            leaf = UUID(after[1]) if after else leaf_message_id or conversation.leaf_message_id
            if leaf is None:
                return (), ""
            await work.messages.get(caller.workspace_id, conversation_id, leaf)
            page = await work.messages.branch(caller.workspace_id, leaf, PageRequest(size, after), max_bytes=PAGE_BYTES)
        return page.messages, self._next(scope, page, str(leaf))

    async def _list_tree(
        self, caller: Caller, conversation_id: UUID, page_size: int, page_token: str
    ) -> tuple[Sequence[Message], str]:
        size, scope = page_size_of(page_size), f"tree {caller.user_id} {conversation_id}"
        after = self._after(scope, page_token)
        async with self.unit_of_work.reading() as work:
            await work.conversations.get(conversation_id, caller)
            page = await work.messages.tree(
                caller.workspace_id, conversation_id, PageRequest(size, after), max_bytes=PAGE_BYTES
            )
        return page.messages, self._next(scope, page, str(page.messages[-1].message_id) if page.messages else "")

    def _next(self, scope: str, page: MessagePage, place: str) -> str:
        return self.signer.page_token(scope, [str(page.messages[-1].depth), place]) if page.has_more else ""

    def _after(self, scope: str, page_token: str) -> Sequence[str] | None:
        return self.signer.keyset(scope, page_token) if page_token else None


def page_size_of(requested: int) -> int:
    """Returns the page size: 20 for 0, at most 100. Raises InvalidField for a negative one."""
    bounds.number("page_size", requested, at_least=0, at_most=2**31 - 1)
    return min(requested, PAGE_SIZE_LIMIT) or DEFAULT_PAGE_SIZE

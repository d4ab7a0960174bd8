"""Repositories over the tables of one transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from application.ports.clock import Clock
from application.ports.repositories import Conversations, Messages, Requests, Runs, Sessions, Users
from domain.conversation import Conversation, Message, MessagePage, PageRequest
from domain.errors import (
    ConversationNotFound,
    EmailTaken,
    MessageNotFound,
    RequestIdReused,
    RunNotFound,
    UserNotFound,
)
from domain.identity import Caller, Session, User
from domain.run import Run, RunEvent, RunState
from tests.fakes.database import Claim, Tables


class FakeUsers(Users):
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, user: User, password_hash: str) -> None:
        if await self.credentials(user.email):
            raise EmailTaken
        self._tables.users[user.user_id] = user
        self._tables.password_hashes[user.user_id] = password_hash

    async def get(self, user_id: UUID) -> User:
        if user_id not in self._tables.users:
            raise UserNotFound
        return self._tables.users[user_id]

    async def credentials(self, email: str) -> tuple[User, str] | None:
        found = (user for user in self._tables.users.values() if user.email == email)
        return next(((user, self._tables.password_hashes[user.user_id]) for user in found), None)

    async def password_hash(self, user_id: UUID) -> str | None:
        return self._tables.password_hashes.get(user_id)

    async def set_password_hash(self, user_id: UUID, password_hash: str) -> None:
        if user_id in self._tables.users:
            self._tables.password_hashes[user_id] = password_hash


class FakeSessions(Sessions):
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, session: Session) -> None:
        self._tables.sessions[session.session_id] = session

    async def lock(self, session_id: UUID) -> Session | None:
        return self._tables.sessions.get(session_id)

    async def save(self, session: Session) -> None:
        self._tables.sessions[session.session_id] = session

    async def end(self, session_id: UUID, now: datetime) -> None:
        session = self._tables.sessions.get(session_id)
        if session is not None and session.end_time is None:
            self._tables.sessions[session_id] = replace(session, end_time=now)
            self._tables.revocations[session_id] = now

    async def end_others(self, user_id: UUID, kept: UUID, now: datetime) -> Sequence[UUID]:
        others = [
            session.session_id
            for session in self._tables.sessions.values()
            if session.user_id == user_id and session.session_id != kept and session.end_time is None
        ]
        for session_id in others:
            await self.end(session_id, now)
        return others

    async def ended_since(self, moment: datetime) -> Sequence[UUID]:
        return [session_id for session_id, written in self._tables.revocations.items() if written > moment]


class FakeConversations(Conversations):
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, conversation: Conversation) -> None:
        self._tables.conversations[conversation.conversation_id] = conversation

    async def get(self, conversation_id: UUID, owner: Caller) -> Conversation:
        found = self._tables.conversations.get(conversation_id)
        if found is None or found not in self._visible(owner):
            raise ConversationNotFound
        return found

    async def lock(self, conversation_id: UUID, owner: Caller) -> Conversation:
        return await self.get(conversation_id, owner)

    async def save(self, conversation: Conversation) -> None:
        self._tables.conversations[conversation.conversation_id] = conversation

    async def list(self, owner: Caller, query: str, page: PageRequest) -> Sequence[Conversation]:
        found = [c for c in self._visible(owner) if query.casefold() in c.title.casefold()]
        if page.after:
            moment, last = page.after
            found = [c for c in found if _activity(c) < (datetime.fromisoformat(moment), UUID(last))]
        return sorted(found, key=_activity, reverse=True)[: page.size]

    async def hide(self, conversation_id: UUID, owner: Caller, now: datetime) -> None:
        await self.get(conversation_id, owner)
        self._tables.hidden[conversation_id] = now

    async def erase_hidden(self) -> int:
        busy = {run.conversation_id for run in self._tables.runs.values() if run.state is RunState.RUNNING}
        doomed = self._tables.hidden.keys() - busy
        for conversation_id in doomed:
            self._erase(conversation_id)
        return len(doomed)

    def _erase(self, conversation_id: UUID) -> None:
        tables = self._tables
        runs = {run_id for run_id, run in tables.runs.items() if run.conversation_id == conversation_id}
        tables.events = {key: event for key, event in tables.events.items() if key[0] not in runs}
        tables.runs = {run_id: run for run_id, run in tables.runs.items() if run_id not in runs}
        tables.messages = {key: m for key, m in tables.messages.items() if m.conversation_id != conversation_id}
        del tables.conversations[conversation_id], tables.hidden[conversation_id]

    def _visible(self, owner: Caller) -> Sequence[Conversation]:
        return [
            c
            for c in self._tables.conversations.values()
            if (c.workspace_id, c.user_id) == (owner.workspace_id, owner.user_id)
            and c.conversation_id not in self._tables.hidden
        ]


class FakeMessages(Messages):
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, workspace_id: UUID, *messages: Message) -> None:
        self._tables.messages.update({(workspace_id, message.message_id): message for message in messages})

    async def get(self, workspace_id: UUID, conversation_id: UUID, message_id: UUID) -> Message:
        message = self._tables.messages.get((workspace_id, message_id))
        if message is None or message.conversation_id != conversation_id:
            raise MessageNotFound
        return message

    async def find(self, message_id: UUID, owner: Caller) -> Message:
        message = self._tables.messages.get((owner.workspace_id, message_id))
        if message is None:
            raise MessageNotFound
        conversation = self._tables.conversations[message.conversation_id]
        if conversation.user_id != owner.user_id or message.conversation_id in self._tables.hidden:
            raise MessageNotFound
        return message

    async def newest_first(self, workspace_id: UUID, leaf: UUID, max_bytes: int) -> Sequence[Message]:
        found: list[Message] = []
        for message in self._walk(workspace_id, leaf):
            if sum(len(newer.content.encode()) for newer in found) > max_bytes:
                break
            found.append(message)
        return found

    async def branch(self, workspace_id: UUID, leaf: UUID, page: PageRequest, max_bytes: int) -> MessagePage:
        last_depth = int(page.after[0]) if page.after else 0
        rest = [m for m in reversed(list(self._walk(workspace_id, leaf))) if m.depth > last_depth]
        return _page(rest, page.size, max_bytes)

    async def tree(self, workspace_id: UUID, conversation_id: UUID, page: PageRequest, max_bytes: int) -> MessagePage:
        after = (int(page.after[0]), UUID(page.after[1])) if page.after else (0, UUID(int=0))
        found = [
            m
            for (workspace, _), m in self._tables.messages.items()
            if (workspace, m.conversation_id) == (workspace_id, conversation_id) and (m.depth, m.message_id) > after
        ]
        return _page(sorted(found, key=lambda m: (m.depth, m.message_id)), page.size, max_bytes)

    def _walk(self, workspace_id: UUID, leaf: UUID | None) -> Iterator[Message]:
        while leaf and (message := self._tables.messages.get((workspace_id, leaf))):
            yield message
            leaf = message.parent_message_id


class FakeRuns(Runs):
    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def add(self, run: Run, started: RunEvent) -> None:
        self._tables.runs[run.run_id] = run
        self._tables.owned_since[run.run_id] = self._clock.now()
        self._tables.events[run.run_id, started.seq] = started

    async def get(self, run_id: UUID, owner: Caller) -> Run:
        run = self._owned(run_id, owner)
        if run.conversation_id in self._tables.hidden:
            raise RunNotFound
        return run

    async def request_cancel(self, run_id: UUID, owner: Caller) -> Run:
        run = self._owned(run_id, owner)
        if run.state is RunState.RUNNING:
            run = replace(run, cancel_requested=True)
            self._tables.runs[run_id] = run
        return run

    async def running_in(self, conversation_id: UUID, owner: Caller) -> Sequence[Run]:
        return [
            self._owned(run.run_id, owner)
            for run in self._tables.runs.values()
            if run.conversation_id == conversation_id and run.user_id == owner.user_id and run.state is RunState.RUNNING
        ]

    def _owned(self, run_id: UUID, owner: Caller) -> Run:
        run = self._tables.runs.get(run_id)
        if run is None or (run.workspace_id, run.user_id) != (owner.workspace_id, owner.user_id):
            raise RunNotFound
        return replace(run, last_seq=self._tables.last_seq(run_id))


class FakeRequests(Requests):
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def claim(
        self, caller: Caller, request_id: str, digest: bytes, resource_id: UUID, now: datetime
    ) -> UUID | None:
        known = self._tables.requests.get((caller.user_id, request_id))
        if known is None or known.create_time < now - timedelta(hours=24):
            self._tables.requests[caller.user_id, request_id] = Claim(digest, resource_id, now)
            return None
        if known.digest != digest:
            raise RequestIdReused
        return known.resource_id

    async def forget_before(self, moment: datetime) -> None:
        kept = {key: claim for key, claim in self._tables.requests.items() if claim.create_time >= moment}
        self._tables.requests = kept


def _page(messages: Sequence[Message], size: int, max_bytes: int) -> MessagePage:
    shown = list(messages[:1])
    for message in messages[1:size]:
        if sum(len(each.content.encode()) for each in (*shown, message)) > max_bytes:
            break
        shown.append(message)
    return MessagePage(shown, has_more=len(messages) > len(shown))


def _activity(conversation: Conversation) -> tuple[datetime, UUID]:
    return conversation.update_time, conversation.conversation_id

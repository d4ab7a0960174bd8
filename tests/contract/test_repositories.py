"""What every set of repositories owes its callers."""

from datetime import timedelta

import pytest

from domain.conversation import NO_USAGE, Conversation, MessagePage, PageRequest, Usage
from domain.errors import (
    ConversationNotFound,
    EmailTaken,
    MessageNotFound,
    RequestIdReused,
    RunNotFound,
    UserNotFound,
)
from domain.identity import Session, User
from domain.run import FinishReason, RunState, SendOptions, end
from tests.builders import (
    NOW,
    a_caller,
    a_conversation,
    a_message,
    a_run,
    a_session,
    a_start,
    a_user,
    an_answer,
    an_event,
    new_id,
)
from tests.stores import Began, Store, a_begun_run, a_registered_caller, a_stored_conversation

SECOND = timedelta(seconds=1)


class UsersContract:
    async def test_a_user_is_found_by_id_and_by_email(self, store: Store) -> None:
        user = a_user()
        async with store.unit_of_work() as work:
            await work.users.add(user, "hash")
            assert await work.users.get(user.user_id) == user
            assert await work.users.credentials(user.email) == (user, "hash")

    async def test_an_email_belongs_to_one_user_of_the_deployment(self, store: Store) -> None:
        async with store.unit_of_work() as work:
            await work.users.add(a_user(email="ada@example.org"), "hash")
            with pytest.raises(EmailTaken):
                await work.users.add(a_user(email="ada@example.org"), "hash")

    async def test_users_may_share_a_workspace(self, store: Store) -> None:
        first = a_user()
        second = a_user(workspace_id=first.workspace_id)
        async with store.unit_of_work() as work:
            await work.users.add(first, "hash")
            await work.users.add(second, "hash")
            assert (await work.users.get(second.user_id)).workspace_id == first.workspace_id

    async def test_a_password_hash_is_replaced(self, store: Store) -> None:
        caller = await a_registered_caller(store)
        async with store.unit_of_work() as work:
            await work.users.set_password_hash(caller.user_id, "new hash")
            assert await work.users.password_hash(caller.user_id) == "new hash"

    async def test_a_missing_user_has_neither_credentials_nor_a_hash(self, store: Store) -> None:
        async with store.unit_of_work.reading() as work:
            assert await work.users.credentials("nobody@example.org") is None
            assert await work.users.password_hash(new_id()) is None
            with pytest.raises(UserNotFound):
                await work.users.get(new_id())


class SessionsContract:
    async def test_a_session_comes_back_as_it_was_stored(self, store: Store) -> None:
        _, session = await _signed_in(store)
        async with store.unit_of_work() as work:
            assert await work.sessions.lock(session.session_id) == session

    async def test_a_missing_session_is_none(self, store: Store) -> None:
        async with store.unit_of_work() as work:
            assert await work.sessions.lock(new_id()) is None

    async def test_a_refreshed_session_keeps_its_new_generation_and_times(self, store: Store) -> None:
        _, session = await _signed_in(store)
        refreshed = session.refreshed(1, NOW + SECOND, timedelta(days=1))
        assert refreshed is not None
        async with store.unit_of_work() as work:
            await work.sessions.save(refreshed)
            assert await work.sessions.lock(session.session_id) == refreshed

    async def test_an_ended_session_is_announced_to_every_replica(self, store: Store) -> None:
        _, session = await _signed_in(store)
        async with store.unit_of_work() as work:
            await work.sessions.end(session.session_id, NOW)
            ended = await work.sessions.lock(session.session_id)
            assert ended is not None
            assert ended.end_time == NOW
            assert await work.sessions.ended_since(NOW - SECOND) == [session.session_id]

    async def test_the_first_end_of_a_session_stays(self, store: Store) -> None:
        _, session = await _signed_in(store)
        async with store.unit_of_work() as work:
            await work.sessions.end(session.session_id, NOW)
            await work.sessions.end(session.session_id, NOW + SECOND)
            ended = await work.sessions.lock(session.session_id)
            assert ended is not None
            assert ended.end_time == NOW

    async def test_old_ends_are_not_announced_again(self, store: Store) -> None:
        _, session = await _signed_in(store)
        async with store.unit_of_work() as work:
            await work.sessions.end(session.session_id, NOW)
            assert await work.sessions.ended_since(NOW) == []

    async def test_ending_the_others_spares_the_kept_one_and_other_users(self, store: Store) -> None:
        user, kept = await _signed_in(store)
        _, stranger = await _signed_in(store)
        other = a_session(user)
        async with store.unit_of_work() as work:
            await work.sessions.add(other)
            assert await work.sessions.end_others(user.user_id, kept.session_id, NOW) == [other.session_id]
            assert await work.sessions.ended_since(NOW - SECOND) == [other.session_id]
            assert await work.sessions.lock(kept.session_id) == kept
            assert await work.sessions.lock(stranger.session_id) == stranger


class ConversationsContract:
    async def test_a_conversation_comes_back_as_it_was_stored(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        async with store.unit_of_work.reading() as work:
            assert await work.conversations.get(conversation.conversation_id, caller) == conversation

    async def test_a_strangers_conversation_is_not_found(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        colleague = a_caller(workspace_id=caller.workspace_id)
        elsewhere = a_caller(user_id=caller.user_id)
        async with store.unit_of_work() as work:
            for stranger in (colleague, elsewhere):
                with pytest.raises(ConversationNotFound):
                    await work.conversations.get(conversation.conversation_id, stranger)
                with pytest.raises(ConversationNotFound):
                    await work.conversations.lock(conversation.conversation_id, stranger)
                with pytest.raises(ConversationNotFound):
                    await work.conversations.hide(conversation.conversation_id, stranger, NOW)
                assert await work.conversations.list(stranger, "", PageRequest(10)) == []

    async def test_a_saved_conversation_has_its_new_title_metadata_leaf_and_time(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        changed = a_conversation(
            caller,
            conversation_id=conversation.conversation_id,
            title="Climate",
            metadata={"a": "b", "c": ""},
            leaf_message_id=new_id(),
            update_time=NOW + SECOND,
        )
        async with store.unit_of_work() as work:
            await work.conversations.save(changed)
            assert await work.conversations.get(conversation.conversation_id, caller) == changed

    async def test_newest_activity_comes_first(self, store: Store) -> None:
        caller = await a_registered_caller(store)
        made = [a_conversation(caller, update_time=NOW + n * SECOND) for n in (1, 3, 2)]
        async with store.unit_of_work() as work:
            for conversation in made:
                await work.conversations.add(conversation)
            assert await work.conversations.list(caller, "", PageRequest(10)) == [made[1], made[2], made[0]]

    async def test_pages_join_without_gap_or_repetition_though_all_have_one_time(self, store: Store) -> None:
        caller = await a_registered_caller(store)
        seen: list[Conversation] = []
        after = None
        async with store.unit_of_work() as work:
            for _ in range(5):
                await work.conversations.add(a_conversation(caller))
            for _ in range(3):
                page = await work.conversations.list(caller, "", PageRequest(2, after))
                seen += page
                after = [page[-1].update_time.isoformat(), str(page[-1].conversation_id)]
        assert len({conversation.conversation_id for conversation in seen}) == 5
        assert seen == sorted(seen, key=lambda c: c.conversation_id, reverse=True)

    @pytest.mark.parametrize("query", ["ärger", "ÄRGER", "100%", "a_b", "\\"])
    async def test_a_title_is_found_by_any_part_of_it_in_any_case(self, store: Store, query: str) -> None:
        caller = await a_registered_caller(store)
        wanted = a_conversation(caller, title="Viel Ärger mit 100% A_B \\")
        async with store.unit_of_work() as work:
            await work.conversations.add(wanted)
            await work.conversations.add(a_conversation(caller, title="1000 Arger axb /"))
            assert await work.conversations.list(caller, query, PageRequest(10)) == [wanted]

    async def test_a_hidden_conversation_is_gone_for_its_owner(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        async with store.unit_of_work() as work:
            await work.conversations.hide(conversation.conversation_id, caller, NOW)
            with pytest.raises(ConversationNotFound):
                await work.conversations.get(conversation.conversation_id, caller)
            with pytest.raises(ConversationNotFound):
                await work.conversations.hide(conversation.conversation_id, caller, NOW)
            assert await work.conversations.list(caller, "", PageRequest(10)) == []

    async def test_a_hidden_conversation_is_erased_with_all_that_hangs_on_it(self, store: Store) -> None:
        began = await a_begun_run(store)
        await _end(store, began)
        async with store.unit_of_work() as work:
            await work.conversations.hide(began.conversation.conversation_id, began.caller, NOW)
            assert await work.conversations.erase_hidden() == 1
            await work.commit()
        async with store.unit_of_work.reading() as work:
            with pytest.raises(MessageNotFound):
                await work.messages.get(
                    began.caller.workspace_id, began.conversation.conversation_id, began.question.message_id
                )
            with pytest.raises(RunNotFound):
                await work.runs.request_cancel(began.run.run_id, began.caller)
        assert not (await store.run_log.read(began.caller.workspace_id, began.run.run_id, 0)).events

    async def test_nothing_is_erased_while_a_run_goes_on(self, store: Store) -> None:
        began = await a_begun_run(store)
        async with store.unit_of_work() as work:
            await work.conversations.hide(began.conversation.conversation_id, began.caller, NOW)
            assert await work.conversations.erase_hidden() == 0
            await work.commit()
        assert (await store.run_log.read(began.caller.workspace_id, began.run.run_id, 0)).events

    async def test_what_nobody_hid_is_not_erased(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        async with store.unit_of_work() as work:
            assert await work.conversations.erase_hidden() == 0
            assert await work.conversations.get(conversation.conversation_id, caller) == conversation


class MessagesContract:
    async def test_a_message_comes_back_as_it_was_stored(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        message = a_message(conversation, usage=Usage(3, 4), model="m", run_id=new_id(), content="Grüße 🌧 \n")
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, message)
            found = await work.messages.get(caller.workspace_id, conversation.conversation_id, message.message_id)
        assert found == message

    async def test_a_message_of_another_conversation_or_workspace_is_not_found(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        message = a_message(conversation)
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, message)
            with pytest.raises(MessageNotFound):
                await work.messages.get(caller.workspace_id, new_id(), message.message_id)
            with pytest.raises(MessageNotFound):
                await work.messages.get(new_id(), conversation.conversation_id, message.message_id)

    async def test_a_message_is_found_by_its_owner_alone(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        message = a_message(conversation)
        colleague = a_caller(workspace_id=caller.workspace_id)
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, message)
            assert await work.messages.find(message.message_id, caller) == message
            for stranger, message_id in (
                (colleague, message.message_id),
                (a_caller(user_id=caller.user_id), message.message_id),
                (caller, new_id()),
            ):
                with pytest.raises(MessageNotFound):
                    await work.messages.find(message_id, stranger)

    async def test_a_message_of_a_hidden_conversation_is_not_found(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        message = a_message(conversation)
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, message)
            await work.conversations.hide(conversation.conversation_id, caller, NOW)
            with pytest.raises(MessageNotFound):
                await work.messages.find(message.message_id, caller)

    async def test_a_branch_is_read_oldest_first_page_by_page(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        root = a_message(conversation)
        left, right = a_message(conversation, root), a_message(conversation, root)
        leaf = a_message(conversation, left)
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, root, left, right, leaf)
            pages = [
                await work.messages.branch(caller.workspace_id, leaf.message_id, PageRequest(2, after), 1000)
                for after in (None, ["2", "more"])
            ]
        assert pages == [MessagePage([root, left], has_more=True), MessagePage([leaf], has_more=False)]

    async def test_a_tree_is_read_by_depth_and_id_page_by_page(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        roots = [a_message(conversation) for _ in range(2)]
        children = [a_message(conversation, root) for root in roots for _ in range(2)]
        other = a_conversation(caller)
        async with store.unit_of_work() as work:
            await work.conversations.add(other)
            await work.messages.add(caller.workspace_id, *reversed(children), *reversed(roots), a_message(other))
            seen: list[MessagePage] = []
            after: list[str] | None = None
            for _ in range(3):
                page = PageRequest(2, after)
                seen.append(await work.messages.tree(caller.workspace_id, conversation.conversation_id, page, 1000))
                after = [str(seen[-1].messages[-1].depth), str(seen[-1].messages[-1].message_id)]
        assert [message for page in seen for message in page.messages] == [*roots, *children]
        assert [page.has_more for page in seen] == [True, True, False]

    @pytest.mark.parametrize(
        ("max_bytes", "shown", "has_more"), [(0, 1, True), (4, 1, True), (7, 1, True), (8, 2, True), (12, 3, False)]
    )
    async def test_a_page_ends_before_its_bytes_but_not_before_its_first_message(
        self, store: Store, max_bytes: int, shown: int, has_more: bool
    ) -> None:
        caller, conversation = await a_stored_conversation(store)
        messages = [a_message(conversation, content="ää")]
        for _ in range(2):
            messages.append(a_message(conversation, messages[-1], content="ää"))
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, *messages)
            page, workspace_id = PageRequest(3), caller.workspace_id
            branch = await work.messages.branch(workspace_id, messages[-1].message_id, page, max_bytes)
            tree = await work.messages.tree(workspace_id, conversation.conversation_id, page, max_bytes)
        assert branch == tree == MessagePage(messages[:shown], has_more)

    async def test_a_conversation_without_messages_has_an_empty_tree(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        async with store.unit_of_work.reading() as work:
            page = await work.messages.tree(caller.workspace_id, conversation.conversation_id, PageRequest(2), 1000)
        assert page == MessagePage([], has_more=False)

    async def test_the_newest_messages_come_up_to_the_one_that_passes_the_bytes(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        branch = [a_message(conversation, content="ää")]
        for _ in range(3):
            branch.append(a_message(conversation, branch[-1], content="ää"))
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, *branch)
            found = [
                await work.messages.newest_first(caller.workspace_id, branch[-1].message_id, bound)
                for bound in (3, 4, 100)
            ]
        assert found == [branch[:2:-1], branch[:1:-1], branch[::-1]]

    async def test_in_another_workspace_there_is_nothing(self, store: Store) -> None:
        caller, conversation = await a_stored_conversation(store)
        message = a_message(conversation)
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, message)
            assert await work.messages.newest_first(new_id(), message.message_id, 100) == []
            branch = await work.messages.branch(new_id(), message.message_id, PageRequest(10), 1000)
            tree = await work.messages.tree(new_id(), conversation.conversation_id, PageRequest(10), 1000)
        assert branch == tree == MessagePage([], has_more=False)


class RunsContract:
    @pytest.mark.parametrize(
        "options", [SendOptions(), SendOptions("m", temperature=0.0, max_output_tokens=7, cancel_on_disconnect=True)]
    )
    async def test_a_run_comes_back_as_it_was_stored(self, store: Store, options: SendOptions) -> None:
        caller, conversation = await a_stored_conversation(store)
        answer = an_answer(conversation)
        run = a_run(conversation, answer, options=options)
        async with store.unit_of_work() as work:
            await work.messages.add(caller.workspace_id, answer)
            await work.runs.add(run, a_start(run))
            assert await work.runs.get(run.run_id, caller) == run

    async def test_the_newest_event_of_a_running_run_is_known(self, store: Store) -> None:
        began = await a_begun_run(store)
        await store.run_log.append(began.replica_id, [an_event(began.run, 2, "It "), an_event(began.run, 3, "will")])
        async with store.unit_of_work.reading() as work:
            assert (await work.runs.get(began.run.run_id, began.caller)).last_seq == 3

    async def test_a_strangers_run_is_not_found(self, store: Store) -> None:
        began = await a_begun_run(store)
        colleague = a_caller(workspace_id=began.caller.workspace_id)
        elsewhere = a_caller(user_id=began.caller.user_id)
        async with store.unit_of_work() as work:
            for stranger in (colleague, elsewhere):
                with pytest.raises(RunNotFound):
                    await work.runs.get(began.run.run_id, stranger)
                with pytest.raises(RunNotFound):
                    await work.runs.request_cancel(began.run.run_id, stranger)
            assert await work.runs.running_in(began.conversation.conversation_id, colleague) == []

    async def test_a_run_of_a_hidden_conversation_is_not_found(self, store: Store) -> None:
        began = await a_begun_run(store)
        async with store.unit_of_work() as work:
            await work.conversations.hide(began.conversation.conversation_id, began.caller, NOW)
            with pytest.raises(RunNotFound):
                await work.runs.get(began.run.run_id, began.caller)

    async def test_a_run_can_be_cancelled_though_its_conversation_is_hidden(self, store: Store) -> None:
        began = await a_begun_run(store)
        async with store.unit_of_work() as work:
            await work.conversations.hide(began.conversation.conversation_id, began.caller, NOW)
            assert await work.runs.running_in(began.conversation.conversation_id, began.caller) == [began.run]
            assert (await work.runs.request_cancel(began.run.run_id, began.caller)).cancel_requested

    async def test_an_ended_run_is_not_marked_to_be_cancelled(self, store: Store) -> None:
        began = await a_begun_run(store)
        await _end(store, began)
        async with store.unit_of_work() as work:
            run = await work.runs.request_cancel(began.run.run_id, began.caller)
        assert (run.state, run.cancel_requested) == (RunState.COMPLETED, False)

    async def test_an_ended_run_does_not_run_in_its_conversation(self, store: Store) -> None:
        began = await a_begun_run(store)
        await _end(store, began)
        async with store.unit_of_work.reading() as work:
            assert await work.runs.running_in(began.conversation.conversation_id, began.caller) == []


class RequestsContract:
    async def test_a_request_id_stands_for_what_it_stood_for_first(self, store: Store) -> None:
        caller, first = a_caller(), new_id()
        async with store.unit_of_work() as work:
            assert await work.requests.claim(caller, "r-1", b"digest", first, NOW) is None
            assert await work.requests.claim(caller, "r-1", b"digest", new_id(), NOW) == first

    async def test_another_request_under_the_same_id_is_refused(self, store: Store) -> None:
        caller = a_caller()
        async with store.unit_of_work() as work:
            await work.requests.claim(caller, "r-1", b"digest", new_id(), NOW)
            with pytest.raises(RequestIdReused):
                await work.requests.claim(caller, "r-1", b"other", new_id(), NOW)

    async def test_users_do_not_share_request_ids(self, store: Store) -> None:
        caller = a_caller()
        async with store.unit_of_work() as work:
            await work.requests.claim(caller, "r-1", b"digest", new_id(), NOW)
            colleague = a_caller(workspace_id=caller.workspace_id)
            assert await work.requests.claim(colleague, "r-1", b"other", new_id(), NOW) is None

    async def test_a_request_id_is_free_again_after_a_day(self, store: Store) -> None:
        caller = a_caller()
        async with store.unit_of_work() as work:
            await work.requests.claim(caller, "r-1", b"digest", new_id(), NOW)
            later = NOW + timedelta(hours=24) + SECOND
            assert await work.requests.claim(caller, "r-1", b"other", new_id(), later) is None

    async def test_forgotten_request_ids_are_free(self, store: Store) -> None:
        caller, kept = a_caller(), new_id()
        async with store.unit_of_work() as work:
            await work.requests.claim(caller, "old", b"digest", new_id(), NOW - SECOND)
            await work.requests.claim(caller, "new", b"digest", kept, NOW)
            await work.requests.forget_before(NOW)
            assert await work.requests.claim(caller, "old", b"other", new_id(), NOW) is None
            assert await work.requests.claim(caller, "new", b"digest", new_id(), NOW) == kept


async def _signed_in(store: Store) -> tuple[User, Session]:
    user = a_user()
    session = a_session(user)
    async with store.unit_of_work() as work:
        await work.users.add(user, "hash")
        await work.sessions.add(session)
        await work.commit()
    return user, session


async def _end(store: Store, began: Began) -> None:
    ending = end(began.run, began.answer, FinishReason.STOP, usage=NO_USAGE, tail=[], now=NOW)
    assert await store.run_log.finish(began.replica_id, ending)


class RepositoriesContract(
    UsersContract, SessionsContract, ConversationsContract, MessagesContract, RunsContract, RequestsContract
):
    """All of them, since they share one transaction."""


class TestFakeRepositories(RepositoriesContract):
    @pytest.fixture
    def store(self, in_memory: Store) -> Store:
        return in_memory


class TestPostgresRepositories(RepositoriesContract):
    @pytest.fixture
    def store(self, in_postgres: Store) -> Store:
        return in_postgres

"""A user's conversations: made, changed, listed and deleted."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from application import conversations
from application.conversations import page_size_of
from domain.conversation import Conversation, ConversationChange, ConversationDraft, Message
from domain.errors import ConversationNotFound, InvalidField, MessageNotFound, RequestIdReused, RunNotFound
from domain.run import Cancelled, Regeneration
from tests.builders import a_caller, new_id
from tests.fakes.database import FakeDatabase
from tests.unit.replica import Replica, Watcher
from tests.unit.waiting import settled, until


async def titled(replica: Replica, *titles: str) -> Sequence[Conversation]:
    """Returns conversations that were made a minute after one another."""
    made = []
    for title in titles:
        replica.clock.advance(minutes=1)
        made.append(await replica.conversation(title))
    return made


async def all_pages(replica: Replica, query: str, size: int) -> list[list[str]]:
    """Returns the titles of each page."""
    pages, token = [], ""
    while True:
        found, token = await replica.conversations.list(replica.caller, query, size, token)
        pages.append([conversation.title for conversation in found])
        if not token:
            return pages


async def talk(replica: Replica, turns: int) -> tuple[Conversation, Sequence[Message]]:
    """Returns a conversation of so many questions with their answers, and its messages."""
    conversation = await replica.conversation()
    for number in range(turns):
        watcher = await replica.ask(conversation)
        (await replica.call(number + 1)).finish()
        await watcher.all()
    stored = replica.database.tables.messages.values()
    messages = [message for message in stored if message.conversation_id == conversation.conversation_id]
    return conversation, sorted(messages, key=lambda message: message.depth)


async def message_pages(
    replica: Replica, conversation: Conversation, size: int, *, all_branches: bool = False
) -> list[list[Message]]:
    """Returns the messages of each page."""
    pages, token = [], ""
    while True:
        found, token = await replica.conversations.list_messages(
            replica.caller, conversation.conversation_id, None, size, token, all_branches=all_branches
        )
        pages.append(list(found))
        if not token:
            return pages


# One conversation


async def test_a_conversation_is_kept_as_it_was_made(replica: Replica) -> None:
    made = await replica.conversations.create(replica.caller, ConversationDraft("Rain", {"team": "sky"}), b"")
    assert await replica.conversations.get(replica.caller, made.conversation_id) == made
    assert (made.title, made.metadata, made.leaf_message_id) == ("Rain", {"team": "sky"}, None)


async def test_the_same_request_returns_the_first_conversation(replica: Replica) -> None:
    draft = ConversationDraft("Rain", request_id="r")
    first = await replica.conversations.create(replica.caller, draft, b"1")
    assert await replica.conversations.create(replica.caller, draft, b"1") == first
    assert len(replica.database.tables.conversations) == 1


async def test_another_draft_under_the_same_request_id_is_refused(replica: Replica) -> None:
    await replica.conversations.create(replica.caller, ConversationDraft("Rain", request_id="r"), b"1")
    with pytest.raises(RequestIdReused):
        await replica.conversations.create(replica.caller, ConversationDraft("Snow", request_id="r"), b"2")


async def test_a_change_is_kept(replica: Replica) -> None:
    made = await replica.conversation("Rain")
    replica.clock.advance(minutes=1)
    changed = await replica.conversations.update(replica.caller, made.conversation_id, ConversationChange("Snow"))
    assert await replica.conversations.get(replica.caller, made.conversation_id) == changed
    assert (changed.title, changed.update_time) == ("Snow", replica.clock.now())


async def test_a_stranger_s_conversation_does_not_exist(replica: Replica) -> None:
    made, stranger, use_cases = await replica.conversation(), a_caller(), replica.conversations
    for attempt in (
        use_cases.get(stranger, made.conversation_id),
        use_cases.update(stranger, made.conversation_id, ConversationChange("Mine")),
        use_cases.delete(stranger, made.conversation_id),
        use_cases.list_messages(stranger, made.conversation_id, None, 0, ""),
    ):
        with pytest.raises(ConversationNotFound):
            await attempt


async def test_a_deleted_conversation_is_hidden_at_once(replica: Replica) -> None:
    made = await replica.conversation()
    await replica.conversations.delete(replica.caller, made.conversation_id)
    with pytest.raises(ConversationNotFound):
        await replica.conversations.get(replica.caller, made.conversation_id)
    assert await all_pages(replica, "", 0) == [[]]


async def test_a_conversation_is_deleted_once(replica: Replica) -> None:
    made = await replica.conversation()
    await replica.conversations.delete(replica.caller, made.conversation_id)
    with pytest.raises(ConversationNotFound):
        await replica.conversations.delete(replica.caller, made.conversation_id)


async def test_deleting_a_conversation_cancels_its_runs(replica: Replica) -> None:
    conversation = await replica.conversation()
    watcher = await replica.ask(conversation)
    await watcher.next()
    await replica.conversations.delete(replica.caller, conversation.conversation_id)
    assert (await watcher.all())[-1].body == Cancelled()


async def test_a_run_of_a_deleted_conversation_cannot_be_looked_at(replica: Replica) -> None:
    conversation = await replica.conversation()
    watcher = await replica.ask(conversation)
    await watcher.next()
    await replica.conversations.delete(replica.caller, conversation.conversation_id)
    with pytest.raises(RunNotFound):
        await replica.chat.run(replica.caller, watcher.run_id)


async def test_a_run_made_elsewhere_is_marked_when_its_conversation_is_deleted(
    database: FakeDatabase, replica: Replica
) -> None:
    conversation = await replica.conversation()
    watcher = await replica.ask(conversation)
    await watcher.next()
    await Replica(database).conversations.delete(replica.caller, conversation.conversation_id)
    assert replica.run(watcher.run_id).cancel_requested


async def test_nobody_asks_in_a_deleted_conversation(replica: Replica) -> None:
    conversation = await replica.conversation()
    await replica.conversations.delete(replica.caller, conversation.conversation_id)
    with pytest.raises(ConversationNotFound):
        await replica.ask(conversation)


async def test_a_question_that_waits_for_the_deletion_is_refused(replica: Replica) -> None:
    conversation = await replica.conversation()
    async with replica.database.turn:
        deleting = asyncio.create_task(replica.conversations.delete(replica.caller, conversation.conversation_id))
        await settled()
        asking = asyncio.create_task(replica.ask(conversation))
        await settled()
    await deleting
    with pytest.raises(ConversationNotFound):
        await asking


# Lists


async def test_conversations_come_newest_activity_first(replica: Replica) -> None:
    oldest, *_ = await titled(replica, "one", "two", "three")
    replica.clock.advance(minutes=1)
    await replica.conversations.update(replica.caller, oldest.conversation_id, ConversationChange("one again"))
    assert await all_pages(replica, "", 0) == [["one again", "three", "two"]]


async def test_an_answer_is_activity(replica: Replica) -> None:
    oldest, *_ = await titled(replica, "one", "two")
    replica.clock.advance(minutes=1)
    await replica.registry.join(replica.engine.replica_id)
    await replica.ask(oldest)
    assert await all_pages(replica, "", 0) == [["one", "two"]]


async def test_only_one_s_own_conversations_are_listed(replica: Replica) -> None:
    await titled(replica, "mine")
    replica.caller = a_caller()
    assert await all_pages(replica, "", 0) == [[]]


async def test_a_query_finds_titles_in_any_case(replica: Replica) -> None:
    await titled(replica, "Rain in Spain", "Snow", "BRAIN")
    assert await all_pages(replica, "rain", 0) == [["BRAIN", "Rain in Spain"]]


async def test_a_query_is_bounded(replica: Replica) -> None:
    with pytest.raises(InvalidField, match="query"):
        await replica.conversations.list(replica.caller, "x" * 201, 0, "")


@pytest.mark.parametrize("size", range(1, 7))
async def test_pages_hold_every_conversation_once(replica: Replica, size: int) -> None:
    await titled(replica, *"abcde")
    pages = await all_pages(replica, "", size)
    assert [title for page in pages for title in page] == list("edcba")
    assert all(len(page) <= size for page in pages)


async def test_pages_tell_conversations_of_the_same_moment_apart(replica: Replica) -> None:
    for title in "abcde":
        await replica.conversation(title)
    pages = await all_pages(replica, "", 2)
    assert sorted(title for page in pages for title in page) == list("abcde")


async def test_there_is_no_empty_last_page(replica: Replica) -> None:
    await titled(replica, *"abcd")
    assert await all_pages(replica, "", 2) == [["d", "c"], ["b", "a"]]


async def test_what_is_new_does_not_move_the_next_page(replica: Replica) -> None:
    await titled(replica, *"abcd")
    _, token = await replica.conversations.list(replica.caller, "", 2, "")
    await titled(replica, "new")
    rest, _ = await replica.conversations.list(replica.caller, "", 2, token)
    assert [conversation.title for conversation in rest] == ["b", "a"]


async def test_a_page_token_of_another_query_is_refused(replica: Replica) -> None:
    await titled(replica, "a1", "a2")
    _, token = await replica.conversations.list(replica.caller, "a", 1, "")
    with pytest.raises(InvalidField, match="page_token"):
        await replica.conversations.list(replica.caller, "b", 1, token)


async def test_a_page_token_of_another_caller_is_refused(replica: Replica) -> None:
    await titled(replica, "a1", "a2")
    _, token = await replica.conversations.list(replica.caller, "", 1, "")
    with pytest.raises(InvalidField, match="page_token"):
        await replica.conversations.list(a_caller(), "", 1, token)


@pytest.mark.parametrize(("requested", "size"), [(0, 20), (1, 1), (100, 100), (101, 100), (2**31 - 1, 100)])
def test_a_page_has_20_entries_by_default_and_100_at_most(requested: int, size: int) -> None:
    assert page_size_of(requested) == size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidField, match="page_size"):
        page_size_of(-1)


# Messages


async def test_messages_come_oldest_first(replica: Replica) -> None:
    conversation, messages = await talk(replica, 2)
    found, token = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, None, 0, "")
    assert (list(found), token) == (messages, "")


async def test_a_conversation_without_messages_has_an_empty_page(replica: Replica) -> None:
    conversation = await replica.conversation()
    page = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, None, 0, "")
    assert page == ((), "")


async def test_a_branch_is_listed_by_its_leaf(replica: Replica) -> None:
    conversation, messages = await talk(replica, 2)
    leaf = messages[1].message_id
    found, _ = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, leaf, 0, "")
    assert list(found) == messages[:2]


async def test_a_leaf_of_another_conversation_is_not_found(replica: Replica) -> None:
    _, messages = await talk(replica, 1)
    other = await replica.conversation()
    with pytest.raises(MessageNotFound):
        await replica.conversations.list_messages(replica.caller, other.conversation_id, messages[0].message_id, 0, "")


async def test_a_missing_leaf_is_not_found(replica: Replica) -> None:
    conversation, _ = await talk(replica, 1)
    with pytest.raises(MessageNotFound):
        await replica.conversations.list_messages(replica.caller, conversation.conversation_id, new_id(), 0, "")


async def test_later_pages_stay_on_the_branch_of_the_first(replica: Replica) -> None:
    conversation, messages = await talk(replica, 2)
    first, token = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, None, 3, "")
    watcher = await replica.ask(conversation)
    await watcher.next()
    second, end = await replica.conversations.list_messages(
        replica.caller, conversation.conversation_id, None, 3, token
    )
    assert ([*first, *second], end) == (messages, "")


async def test_a_page_token_of_another_conversation_is_refused(replica: Replica) -> None:
    conversation, _ = await talk(replica, 1)
    _, token = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, None, 1, "")
    other = await replica.conversation()
    with pytest.raises(InvalidField, match="page_token"):
        await replica.conversations.list_messages(replica.caller, other.conversation_id, None, 1, token)


async def test_a_page_of_long_messages_ends_early_and_the_next_one_goes_on(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation, messages = await talk(replica, 3)
    monkeypatch.setattr(conversations, "PAGE_BYTES", len("Will it rain?"))
    for all_branches in (False, True):
        pages = await message_pages(replica, conversation, 0, all_branches=all_branches)
        assert [message for page in pages for message in page] == messages
        assert [len(page) for page in pages] == [2, 2, 2]


async def test_all_branches_are_listed_parents_before_children(replica: Replica) -> None:
    conversation, messages = await talk(replica, 2)
    watcher = Watcher(await replica.chat.regenerate(replica.caller, Regeneration(messages[1].message_id)))
    await watcher.next()
    new = replica.message(watcher.run_id)
    for size in (0, 1, 2):
        pages = await message_pages(replica, conversation, size, all_branches=True)
        assert [message for page in pages for message in page] == [*messages[:2], new, *messages[2:]]


async def test_a_conversation_without_messages_has_no_branches(replica: Replica) -> None:
    assert await message_pages(replica, await replica.conversation(), 0, all_branches=True) == [[]]


async def test_all_branches_have_no_one_leaf(replica: Replica) -> None:
    conversation, messages = await talk(replica, 1)
    leaf = messages[1].message_id
    with pytest.raises(InvalidField, match="leaf_message_id"):
        await replica.conversations.list_messages(
            replica.caller, conversation.conversation_id, leaf, 0, "", all_branches=True
        )


async def test_a_page_token_of_one_branch_is_none_of_all(replica: Replica) -> None:
    conversation, _ = await talk(replica, 1)
    _, token = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, None, 1, "")
    with pytest.raises(InvalidField, match="page_token"):
        await replica.conversations.list_messages(
            replica.caller, conversation.conversation_id, None, 1, token, all_branches=True
        )


async def test_a_stranger_s_branches_do_not_exist(replica: Replica) -> None:
    conversation, _ = await talk(replica, 1)
    with pytest.raises(ConversationNotFound):
        await replica.conversations.list_messages(
            a_caller(), conversation.conversation_id, None, 0, "", all_branches=True
        )


@settings(max_examples=30, deadline=None)
@given(minutes=st.lists(st.integers(0, 3), max_size=8), size=st.integers(1, 4))
async def test_page_tokens_lead_through_any_list_without_gap_or_repetition(minutes: list[int], size: int) -> None:
    replica = Replica(FakeDatabase())
    for number, pause in enumerate(minutes):
        replica.clock.advance(minutes=pause)
        await replica.conversation(str(number))
    pages = await all_pages(replica, "", size)
    assert [int(title) for page in pages for title in page] == list(reversed(range(len(minutes))))
    assert all(len(page) == size for page in pages[:-1])


@settings(max_examples=100, deadline=None)
@given(token=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
async def test_what_is_no_page_token_is_an_invalid_field(token: str) -> None:
    replica = Replica(FakeDatabase())
    with pytest.raises(InvalidField, match="page_token"):
        await replica.conversations.list(replica.caller, "", 1, token)


async def test_watchers_see_a_message_list_change_only_at_the_end(replica: Replica) -> None:
    conversation = await replica.conversation()
    watcher: Watcher = await replica.ask(conversation)
    await watcher.next()
    (await replica.call()).say("It wi")
    await until(lambda: len(replica.logged(watcher.run_id)) == 2)
    found, _ = await replica.conversations.list_messages(replica.caller, conversation.conversation_id, None, 0, "")
    assert found[1].content == ""

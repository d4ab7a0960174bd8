"""A user's conversations on the running service: kept, found again, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chatback.v1 import chat_service_pb2 as chat_pb
from chatback.v1 import conversation_service_pb2 as pb
from chatback.v1 import run_pb2
from tests.e2e.caller import Call, Person, failure, until_text
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

GetConversation = pb.GetConversationRequest
WITH_AN_ID: dict[str, Callable[[Person, dict[str, str]], Call]] = {
    "GetConversation": lambda who, ids: who.conversations.GetConversation(
        GetConversation(conversation_id=ids["conversation"])
    ),
    "UpdateConversation": lambda who, ids: who.conversations.UpdateConversation(
        pb.UpdateConversationRequest(conversation_id=ids["conversation"], title="mine now")
    ),
    "DeleteConversation": lambda who, ids: who.conversations.DeleteConversation(
        pb.DeleteConversationRequest(conversation_id=ids["conversation"])
    ),
    "ListMessages": lambda who, ids: who.conversations.ListMessages(
        pb.ListMessagesRequest(conversation_id=ids["conversation"])
    ),
    "ListMessages of a leaf": lambda who, ids: who.conversations.ListMessages(
        pb.ListMessagesRequest(conversation_id=ids["own"], leaf_message_id=ids["message"])
    ),
    "SendMessage": lambda who, ids: who.send(ids["conversation"]),
    "SendMessage to a parent": lambda who, ids: who.send(ids["own"], parent_message_id=ids["message"]),
    "SendMessage in other words": lambda who, ids: who.send(ids["own"], edited_message_id=ids["message"]),
    "RegenerateMessage": lambda who, ids: who.regenerate(ids["message"]),
    "ListMessages of all branches": lambda who, ids: who.conversations.ListMessages(
        pb.ListMessagesRequest(conversation_id=ids["conversation"], all_branches=True)
    ),
    "StreamRun": lambda who, ids: who.chat.StreamRun(chat_pb.StreamRunRequest(run_id=ids["run"])),
    "GetRun": lambda who, ids: who.chat.GetRun(chat_pb.GetRunRequest(run_id=ids["run"])),
    "CancelRun": lambda who, ids: who.chat.CancelRun(chat_pb.CancelRunRequest(run_id=ids["run"])),
}


async def found(who: Person, **fields: Any) -> list[str]:
    """Returns the titles of a page."""
    page = await who.conversations.ListConversations(pb.ListConversationsRequest(**fields))
    return [conversation.title for conversation in page.conversations]


def get(who: Person, conversation_id: str) -> Any:
    return who.conversations.GetConversation(GetConversation(conversation_id=conversation_id))


def update(who: Person, conversation_id: str, *paths: str, **fields: Any) -> Any:
    mask = FieldMask(paths=paths) if paths else None
    request = pb.UpdateConversationRequest(conversation_id=conversation_id, update_mask=mask, **fields)
    return who.conversations.UpdateConversation(request)


def delete(who: Person, conversation_id: str) -> Any:
    return who.conversations.DeleteConversation(pb.DeleteConversationRequest(conversation_id=conversation_id))


async def test_what_is_made_is_what_is_got(me: Person) -> None:
    made = await me.converse("Weather ☔ 𝄞", metadata={"team": "sky", "a.b-c_1": ""})
    assert (await get(me, made.conversation_id)).conversation == made
    assert made.title == "Weather ☔ 𝄞"
    assert made.metadata == {"team": "sky", "a.b-c_1": ""}
    assert UUID(made.conversation_id).version == 7
    assert made.create_time == made.update_time
    assert not made.current_leaf_message_id


async def test_an_update_replaces_what_the_mask_names_alone(me: Person) -> None:
    made = await me.converse("old", metadata={"a": "1"})
    changed = (await update(me, made.conversation_id, "metadata", title="new", metadata={"b": "2"})).conversation
    assert (changed.title, dict(changed.metadata)) == ("old", {"b": "2"})
    assert changed.update_time.ToDatetime() > made.update_time.ToDatetime()
    assert (await get(me, made.conversation_id)).conversation == changed


async def test_an_update_without_a_mask_replaces_what_is_not_empty(me: Person) -> None:
    made = await me.converse("old", metadata={"a": "1"})
    changed = (await update(me, made.conversation_id, title="new")).conversation
    assert (changed.title, dict(changed.metadata)) == ("new", {"a": "1"})


async def test_an_update_can_clear_what_its_mask_names(me: Person) -> None:
    made = await me.converse("old", metadata={"a": "1"})
    changed = (await update(me, made.conversation_id, "title", "metadata", "collection_ids")).conversation
    assert (changed.title, dict(changed.metadata)) == ("", {})


@pytest.mark.parametrize("path", ["conversation_id", "*", "title.x", "create_time", "Title", "nul\0"])
async def test_a_mask_names_only_what_can_be_replaced(me: Person, path: str) -> None:
    made = await me.converse("old")
    refusal = await failure(update(me, made.conversation_id, "title", path, title="new"))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["update_mask"])
    assert (await get(me, made.conversation_id)).conversation.title == "old"


async def test_one_request_id_makes_one_conversation(me: Person) -> None:
    made = await asyncio.gather(*(me.converse("once", request_id="r 1".replace(" ", "-")) for _ in range(10)))
    assert len({conversation.conversation_id for conversation in made}) == 1
    assert await found(me) == ["once"]


async def test_a_request_id_of_another_request_is_refused(me: Person, endpoint: OpenAIEndpoint) -> None:
    made = await me.converse("once", request_id="r")
    other = await failure(me.conversations.CreateConversation(pb.CreateConversationRequest(title="2", request_id="r")))
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert (await failure(me.send(made.conversation_id, request_id="r"))).reason == "REQUEST_ID_REUSED"


async def test_a_request_id_is_its_callers_alone(me: Person, stranger: Person) -> None:
    mine, theirs = await me.converse("a", request_id="r"), await stranger.converse("b", request_id="r")
    assert mine.conversation_id != theirs.conversation_id


async def test_pages_show_every_conversation_once_newest_activity_first(me: Person) -> None:
    made = [await me.converse(f"{number}") for number in range(5)]
    await update(me, made[1].conversation_id, title="1, changed")
    titles: list[str] = []
    token = ""
    while not titles or token:
        page = await me.conversations.ListConversations(pb.ListConversationsRequest(page_size=2, page_token=token))
        titles += [conversation.title for conversation in page.conversations]
        token = page.next_page_token
    assert titles == ["1, changed", "4", "3", "2", "0"]


async def test_an_answer_is_activity(me: Person, endpoint: OpenAIEndpoint) -> None:
    first, _ = await me.converse("first"), await me.converse("second")
    await me.ask(first.conversation_id)
    assert await found(me) == ["first", "second"]


async def test_a_page_has_20_unless_asked_and_100_at_most(me: Person) -> None:
    await asyncio.gather(*(me.converse(f"{number}") for number in range(101)))
    for asked, given in {0: 20, 1: 1, 99: 99, 100: 100, 101: 100, 2**31 - 1: 100}.items():
        page = await me.conversations.ListConversations(pb.ListConversationsRequest(page_size=asked))
        assert (len(page.conversations), bool(page.next_page_token)) == (given, True)


async def test_a_page_that_ends_the_list_has_no_token(me: Person) -> None:
    await me.converse()
    page = await me.conversations.ListConversations(pb.ListConversationsRequest(page_size=1))
    assert not page.next_page_token


async def test_a_negative_page_size_is_refused(me: Person) -> None:
    made = await me.converse()
    lists: list[Call] = [
        me.conversations.ListConversations(pb.ListConversationsRequest(page_size=-1)),
        me.conversations.ListMessages(pb.ListMessagesRequest(conversation_id=made.conversation_id, page_size=-1)),
    ]
    for call in lists:
        refusal = await failure(call)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_size"])


async def test_a_page_token_is_good_for_its_caller_and_query_alone(me: Person, stranger: Person) -> None:
    for _ in range(2):
        await me.converse("a title")
        await stranger.converse("a title")
    conversation = await me.converse("a title")
    first = await me.conversations.ListConversations(pb.ListConversationsRequest(page_size=1, query="title"))
    token = first.next_page_token
    spoiled = ("B" if token[0] == "A" else "A") + token[1:]
    calls: list[Call] = [
        stranger.conversations.ListConversations(pb.ListConversationsRequest(query="title", page_token=token)),
        me.conversations.ListConversations(pb.ListConversationsRequest(query="other", page_token=token)),
        me.conversations.ListConversations(pb.ListConversationsRequest(page_token=token)),
        me.conversations.ListMessages(
            pb.ListMessagesRequest(conversation_id=conversation.conversation_id, page_token=token)
        ),
        *(
            me.conversations.ListConversations(pb.ListConversationsRequest(query="title", page_token=wrong))
            for wrong in (spoiled, token[:-1], token + "A", token + ".", "x", ".", "nul\0", "é" * 5000)
        ),
    ]
    for call in calls:
        refusal = await failure(call)
        assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["page_token"])


@pytest.mark.parametrize("query", ["STRASSE", "straße", "SSE 1", "100%", "_", "%_", "İ", "\\"])
async def test_a_search_finds_titles_that_contain_the_text_whatever_its_case(me: Person, query: str) -> None:
    await me.converse("Die Straße 1 - 100%_ \\ İstanbul")
    await me.converse("something else")
    assert await found(me, query=query) == ["Die Straße 1 - 100%_ \\ İstanbul"]


async def test_messages_come_in_pages_oldest_first(me: Person, endpoint: OpenAIEndpoint) -> None:
    conversation_id = (await me.converse()).conversation_id
    for question in ("one", "two"):
        await me.ask(conversation_id, question)
    contents: list[str] = []
    token = ""
    while not contents or token:
        request = pb.ListMessagesRequest(conversation_id=conversation_id, page_size=3, page_token=token)
        page = await me.conversations.ListMessages(request)
        contents += [message.content for message in page.messages]
        token = page.next_page_token
    assert contents == ["one", "Hello world", "two", "Hello world"]


async def test_a_conversation_shows_one_branch_of_its_tree(me: Person, endpoint: OpenAIEndpoint) -> None:
    conversation_id = (await me.converse()).conversation_id
    endpoint.script(*(answer(text) for text in ("A1", "A2", "A3")))
    await me.ask(conversation_id, "Q1")
    first = await me.messages(conversation_id)
    await me.ask(conversation_id, "Q2")
    second = await me.messages(conversation_id)
    await me.ask(conversation_id, "Q3", parent_message_id=first[-1].message_id)
    third = await me.messages(conversation_id)
    assert [message.content for message in third] == ["Q1", "A1", "Q3", "A3"]
    assert [message.parent_message_id for message in third[1:]] == [message.message_id for message in third[:-1]]
    assert await me.messages(conversation_id, leaf_message_id=second[-1].message_id) == second
    leaf = (await get(me, conversation_id)).conversation.current_leaf_message_id
    assert leaf == third[-1].message_id


async def test_a_messages_token_is_good_for_its_leaf_alone(me: Person, endpoint: OpenAIEndpoint) -> None:
    conversation_id = (await me.converse()).conversation_id
    for question in ("one", "two"):
        await me.ask(conversation_id, question)
    messages = await me.messages(conversation_id)
    fields = {"conversation_id": conversation_id, "page_size": 1}
    page = await me.conversations.ListMessages(
        pb.ListMessagesRequest(leaf_message_id=messages[3].message_id, **fields)  # type: ignore[arg-type]
    )
    other = pb.ListMessagesRequest(
        leaf_message_id=messages[1].message_id,
        page_token=page.next_page_token,
        **fields,  # type: ignore[arg-type]
    )
    assert (await failure(me.conversations.ListMessages(other))).fields == ["page_token"]


@pytest.mark.parametrize("method", WITH_AN_ID)
async def test_somebody_elses_things_are_missing_like_those_that_never_were(
    me: Person, stranger: Person, endpoint: OpenAIEndpoint, method: str
) -> None:
    started = (await stranger.ask((await stranger.converse("secret")).conversation_id))[0]
    own = (await me.converse()).conversation_id
    theirs = {
        "own": own,
        "conversation": started.started.conversation_id,
        "message": started.started.message_id,
        "run": started.run_id,
    }
    missing = {"own": own, "conversation": str(uuid4()), "message": str(uuid4()), "run": str(uuid4())}
    foreign, absent = [await failure(WITH_AN_ID[method](me, ids)) for ids in (theirs, missing)]
    assert foreign.code is grpc.StatusCode.NOT_FOUND
    assert (foreign.reason, foreign.message, foreign.metadata) == (absent.reason, absent.message, absent.metadata)
    assert (await get(stranger, started.started.conversation_id)).conversation.title == "secret"
    assert (await stranger.run(started.run_id)).state == run_pb2.RUN_STATE_COMPLETED


@pytest.mark.parametrize("method", WITH_AN_ID)
async def test_what_was_deleted_is_missing_at_once(me: Person, endpoint: OpenAIEndpoint, method: str) -> None:
    started = (await me.ask((await me.converse("gone")).conversation_id))[0]
    ids = {
        "own": (await me.converse()).conversation_id,
        "conversation": started.started.conversation_id,
        "message": started.started.message_id,
        "run": started.run_id,
    }
    await delete(me, ids["conversation"])
    assert (await failure(WITH_AN_ID[method](me, ids))).code is grpc.StatusCode.NOT_FOUND
    assert await found(me) == [""]


async def test_deleting_stops_the_runs(me: Person, endpoint: OpenAIEndpoint) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    conversation_id = (await me.converse()).conversation_id
    call = me.send(conversation_id)
    await until_text(call)
    await delete(me, conversation_id)
    rest = [response.event.WhichOneof("event") async for response in call]
    assert rest == ["cancelled"]
    await asyncio.wait_for(endpoint.requests[0].disconnected.wait(), 1)

"""Branches on the running service: questions in other words, answers made anew, and lists of them that fit a client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from chatback.v1 import chat_service_pb2, conversation_pb2, run_pb2
from chatback.v1 import conversation_service_pb2 as pb
from tests.e2e.caller import Person, events_of, failure, text_of, until_text
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer


async def pages(who: Person, conversation: str, **fields: Any) -> list[list[conversation_pb2.Message]]:
    """Returns the messages of each page."""
    found: list[list[conversation_pb2.Message]] = []
    token = ""
    while not found or token:
        request = pb.ListMessagesRequest(conversation_id=conversation, page_token=token, **fields)
        page = await who.conversations.ListMessages(request)
        found.append(list(page.messages))
        token = page.next_page_token
    return found


async def contents(who: Person, conversation: str, **fields: Any) -> list[str]:
    """Returns what is said on all pages together."""
    return [message.content for page in await pages(who, conversation, **fields) for message in page]


async def leaf(who: Person, conversation: str) -> str:
    """Returns the last message of the branch in use."""
    request = pb.GetConversationRequest(conversation_id=conversation)
    return (await who.conversations.GetConversation(request)).conversation.current_leaf_message_id


def started(events: Sequence[run_pb2.RunEvent]) -> run_pb2.RunStarted:
    return events[0].started


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation with two questions, and both answers."""

    conversation: str
    first: run_pb2.RunStarted
    second: run_pb2.RunStarted


@pytest.fixture
async def talk(me: Person, endpoint: OpenAIEndpoint) -> Talk:
    conversation = (await me.converse()).conversation_id
    endpoint.script(answer("A1"), answer("A2"), answer("A3"), answer("A4"))
    first, second = [started(await me.ask(conversation, question)) for question in ("Q1", "Q2")]
    return Talk(conversation, first, second)


def shown(endpoint: OpenAIEndpoint) -> list[str]:
    """Returns what the model was shown last."""
    return [turn["content"] for turn in endpoint.requests[-1].body["messages"]]


async def test_an_answer_made_anew_is_a_sibling_and_the_branch_in_use(
    me: Person, endpoint: OpenAIEndpoint, talk: Talk
) -> None:
    events = await events_of(me.regenerate(talk.second.message_id))
    new = events[-1].completed.message
    assert text_of(events) == new.content == "A3"
    assert started(events).user_message_id == new.parent_message_id == talk.second.user_message_id
    assert new.message_id == await leaf(me, talk.conversation)
    assert await contents(me, talk.conversation) == ["Q1", "A1", "Q2", "A3"]
    assert await contents(me, talk.conversation, leaf_message_id=talk.second.message_id) == ["Q1", "A1", "Q2", "A2"]
    assert shown(endpoint) == ["Q1", "A1", "Q2"]


async def test_an_early_answer_made_anew_leaves_what_follows_it_to_the_old_branch(
    me: Person, endpoint: OpenAIEndpoint, talk: Talk
) -> None:
    await events_of(me.regenerate(talk.first.message_id))
    await me.ask(talk.conversation, "Q3")
    assert await contents(me, talk.conversation) == ["Q1", "A3", "Q3", "A4"]
    assert await contents(me, talk.conversation, leaf_message_id=talk.second.message_id) == ["Q1", "A1", "Q2", "A2"]
    assert shown(endpoint) == ["Q1", "A3", "Q3"]


async def test_options_say_how_the_answer_is_made_anew(me: Person, endpoint: OpenAIEndpoint, talk: Talk) -> None:
    options = chat_service_pb2.SendOptions(model="model-2", temperature=0.0)
    events = await events_of(me.regenerate(talk.first.message_id, options=options))
    assert events[-1].completed.message.model == "model-2"
    assert (endpoint.requests[-1].body["model"], endpoint.requests[-1].body["temperature"]) == ("model-2", 0.0)


async def test_twenty_equal_wishes_at_once_are_one(me: Person, endpoint: OpenAIEndpoint, talk: Talk) -> None:
    calls = [me.regenerate(talk.second.message_id, request_id="once") for _ in range(20)]
    streams = await asyncio.gather(*map(events_of, calls))
    assert len({tuple(event.SerializeToString(deterministic=True) for event in events) for events in streams}) == 1
    assert len(endpoint.requests) == 3
    assert len(await contents(me, talk.conversation, all_branches=True)) == 5


async def test_a_request_id_of_a_question_is_none_of_a_wish(me: Person, talk: Talk) -> None:
    await me.ask(talk.conversation, request_id="once")
    refused = await failure(me.regenerate(talk.second.message_id, request_id="once"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    await events_of(me.regenerate(talk.second.message_id, request_id="again"))
    assert (await failure(me.send(talk.conversation, request_id="again"))).reason == "REQUEST_ID_REUSED"
    assert (await failure(me.regenerate(talk.first.message_id, request_id="again"))).reason == "REQUEST_ID_REUSED"


async def test_a_question_is_not_made_anew(me: Person, talk: Talk) -> None:
    refused = await failure(me.regenerate(talk.second.user_message_id))
    assert (refused.code, refused.reason, refused.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        ["message_id"],
    )


@pytest.mark.parametrize("message_id", ["", "x"])
async def test_what_is_no_id_is_refused(me: Person, message_id: str) -> None:
    assert (await failure(me.regenerate(message_id))).fields == ["message_id"]


async def test_an_answer_that_is_being_made_is_not_made_anew(me: Person, endpoint: OpenAIEndpoint, talk: Talk) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("A3", gate))
    call = me.send(talk.conversation, "Q3")
    events = await until_text(call)
    refused = await failure(me.regenerate(started(events).message_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_IN_PROGRESS")
    assert refused.metadata == {"run_id": events[0].run_id}
    gate.set()
    await events_of(call)


async def test_a_stream_of_an_answer_made_anew_is_resumed_like_any_other(
    me: Person, endpoint: OpenAIEndpoint, talk: Talk
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("A", gate, "3"))
    call = me.regenerate(talk.second.message_id)
    seen = await until_text(call)
    call.cancel()
    gate.set()
    seen += await me.watch(seen[0].run_id, seen[-1].seq)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert text_of(seen) == seen[-1].completed.message.content == "A3"


async def test_three_branches_are_listed_each_by_its_leaf(me: Person, endpoint: OpenAIEndpoint, talk: Talk) -> None:
    third = started(await me.ask(talk.conversation, "Q3", parent_message_id=talk.first.message_id))
    fourth = started(await me.ask(talk.conversation, "Q4", edited_message_id=talk.second.user_message_id))
    branches = {
        talk.second.message_id: ["Q1", "A1", "Q2", "A2"],
        third.message_id: ["Q1", "A1", "Q3", "A3"],
        fourth.message_id: ["Q1", "A1", "Q4", "A4"],
    }
    for size in (0, 1, 3):
        for leaf_id, said in branches.items():
            assert await contents(me, talk.conversation, leaf_message_id=leaf_id, page_size=size) == said
    assert await contents(me, talk.conversation) == branches[fourth.message_id]


async def test_the_first_question_in_other_words_begins_a_tree_of_its_own(
    me: Person, endpoint: OpenAIEndpoint, talk: Talk
) -> None:
    await me.ask(talk.conversation, "Q0", edited_message_id=talk.first.user_message_id)
    assert shown(endpoint) == ["Q0"]
    assert await contents(me, talk.conversation) == ["Q0", "A3"]
    (page,) = await pages(me, talk.conversation, all_branches=True)
    assert [message.content for message in page if not message.parent_message_id] == ["Q1", "Q0"]


@pytest.mark.parametrize("field", ["edited_message_id", "parent_message_id"])
async def test_what_is_edited_is_a_question_and_has_its_own_place(me: Person, talk: Talk, field: str) -> None:
    fields = {"edited_message_id": talk.second.message_id, field: talk.second.message_id}
    refused = await failure(me.send(talk.conversation, **fields))
    assert (refused.reason, refused.fields) == ("INVALID_FIELD", ["edited_message_id"])


async def test_all_branches_show_what_people_can_choose_between(
    me: Person, endpoint: OpenAIEndpoint, talk: Talk
) -> None:
    await events_of(me.regenerate(talk.second.message_id))
    await me.ask(talk.conversation, "Q4", edited_message_id=talk.second.user_message_id)
    for size in (0, 1, 3):
        found = [m for page in await pages(me, talk.conversation, all_branches=True, page_size=size) for m in page]
        assert [message.content for message in found] == ["Q1", "A1", "Q2", "Q4", "A2", "A3", "A4"]
        known = {""}
        for message in found:
            assert message.parent_message_id in known
            known.add(message.message_id)


async def test_a_page_token_stays_on_its_branch(me: Person, endpoint: OpenAIEndpoint, talk: Talk) -> None:
    first = await me.conversations.ListMessages(pb.ListMessagesRequest(conversation_id=talk.conversation, page_size=2))
    await events_of(me.regenerate(talk.second.message_id))
    token = first.next_page_token
    rest = await me.messages(talk.conversation, page_size=2, page_token=token)
    assert [message.content for message in rest] == ["Q2", "A2"]
    for other in ({"leaf_message_id": talk.second.message_id}, {"all_branches": True}):
        request = pb.ListMessagesRequest(conversation_id=talk.conversation, page_token=token, **other)
        assert (await failure(me.conversations.ListMessages(request))).fields == ["page_token"]


async def test_a_leaf_is_a_message_of_the_conversation(me: Person, stranger: Person, talk: Talk) -> None:
    elsewhere = started(await me.ask((await me.converse()).conversation_id)).message_id
    theirs = started(await stranger.ask((await stranger.converse()).conversation_id)).message_id
    for wrong in (elsewhere, theirs):
        request = pb.ListMessagesRequest(conversation_id=talk.conversation, leaf_message_id=wrong)
        refused = await failure(me.conversations.ListMessages(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")


async def test_all_branches_have_no_one_leaf(me: Person, talk: Talk) -> None:
    leaf_id = talk.second.message_id
    request = pb.ListMessagesRequest(conversation_id=talk.conversation, leaf_message_id=leaf_id, all_branches=True)
    assert (await failure(me.conversations.ListMessages(request))).fields == ["leaf_message_id"]


async def test_the_longest_answers_reach_a_client_with_the_limits_of_its_library(
    me: Person, endpoint: OpenAIEndpoint
) -> None:
    conversation = (await me.converse()).conversation_id
    endpoint.script(answer(*["\U0001d11e" * 10_000] * 110), answer(*["\U0001d11e" * 10_000] * 30))
    events = await me.ask(conversation)
    longest = events[-1].completed
    assert longest.finish_reason == run_pb2.FINISH_REASON_LENGTH
    assert longest.message.status == conversation_pb2.MESSAGE_STATUS_INCOMPLETE
    assert longest.message.content == text_of(events) == "\U0001d11e" * 1_000_000
    for _ in range(3):
        await me.ask(conversation)
    for fields in ({}, {"all_branches": True}):
        sizes = [[len(message.content) for message in page] for page in await pages(me, conversation, **fields)]
        assert sizes == [[5], [1_000_000], [5, 300_000, 5, 300_000, 5], [300_000]]

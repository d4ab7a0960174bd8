"""The running service over REST: the same answers, the same errors, and streams that a browser can resume."""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from entrypoints.grpc.server import SERVICES
from entrypoints.rest.http_rules import HttpRule, http_rules
from tests.e2e.caller import PASSWORD, Person
from tests.e2e.service import Service, running, spawned
from tests.e2e.web import Event, event_source, rest_url, signed_in
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

RULES = list(http_rules(SERVICES))


@pytest.fixture
async def web(service: Service, me: Person) -> AsyncIterator[aiohttp.ClientSession]:
    """A session of somebody who is signed in."""
    async with signed_in(service, me.tokens.access_token) as session:
        yield session


@pytest.fixture
async def nobody_s_web(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    """A session of nobody."""
    async with signed_in(service) as session:
        yield session


async def told(call: Any, status: int = 200) -> Any:
    """Returns the JSON of an answer, which must have this status."""
    async with call as response:
        body = await response.json()
        assert response.status == status, body
        return body


async def reason(call: Any, status: int) -> str:
    """Returns the reason of a refusal, which must have this status."""
    error = (await told(call, status))["error"]
    assert error["code"] == status
    return str(error["details"][0]["reason"])


async def conversation(web: aiohttp.ClientSession, **fields: object) -> str:
    """Makes a conversation and returns its id."""
    made = await told(web.post("/v1/conversations", json=fields))
    return str(made["conversation"]["conversationId"])


async def ask(service: Service, me: Person, conversation_id: str, **fields: object) -> list[Event]:
    """Returns all events of an answer."""
    async with event_source(service) as source:
        path = f"/v1/conversations/{conversation_id}/messages:send"
        assert await source.open("POST", path, me.tokens.access_token, {"content": "Hello", **fields}) == 200
        return [event async for event in source.events()]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events)


async def test_everything_can_be_done_over_rest(nobody_s_web: aiohttp.ClientSession, endpoint: OpenAIEndpoint) -> None:
    web = nobody_s_web
    person = {"email": f"{uuid4()}@example.org", "password": PASSWORD}
    user = (await told(web.post("/v1/auth:register", json={**person, "displayName": "Ada"})))["user"]
    tokens = (await told(web.post("/v1/auth:login", json=person)))["tokens"]
    tokens = (await told(web.post("/v1/auth:refresh", json={"refreshToken": tokens["refreshToken"]})))["tokens"]
    web.headers.update({"authorization": f"Bearer {tokens['accessToken']}"})
    assert (await told(web.get("/v1/users/me")))["user"] == user
    made = await conversation(web, title="First", metadata={"a": "b"})
    path = f"/v1/conversations/{made}"
    async with web.post(f"{path}/messages:send", json={"content": "Hello"}) as response:
        assert "Hello world" in await response.text()
    messages = (await told(web.get(f"{path}/messages")))["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("MESSAGE_ROLE_USER", "Hello"),
        ("MESSAGE_ROLE_ASSISTANT", "Hello world"),
    ]
    run = (await told(web.get(f"/v1/runs/{messages[1]['runId']}")))["run"]
    assert run["state"] == "RUN_STATE_COMPLETED"
    assert await told(web.post(f"/v1/runs/{run['runId']}:cancel")) == {"run": run}
    renamed = await told(web.patch(path, json={"title": "", "updateMask": "title"}))
    assert (renamed["conversation"]["title"], renamed["conversation"]["metadata"]) == ("", {"a": "b"})
    listed = await told(web.get("/v1/conversations", params={"pageSize": "5"}))
    assert [each["conversationId"] for each in listed["conversations"]] == [made]
    assert (await told(web.get("/v1/models")))["models"][0]["isDefault"]
    assert await told(web.delete(path)) == {}
    assert await reason(web.get(path), 404) == "CONVERSATION_NOT_FOUND"
    assert await told(web.post("/v1/auth:logout")) == {}
    assert await reason(web.get("/v1/users/me"), 401) == "SESSION_ENDED"


async def test_events_are_those_of_grpc(
    service: Service, web: aiohttp.ClientSession, me: Person, endpoint: OpenAIEndpoint
) -> None:
    shown = await ask(service, me, await conversation(web))
    events = await me.watch(shown[0].data["event"]["runId"])
    assert [(event.id, event.name) for event in shown] == [
        (str(event.seq), event.WhichOneof("event")) for event in events
    ]
    assert text_of(shown) == "".join(event.text_delta.text for event in events) == "Hello world"


async def test_an_event_source_that_was_cut_off_goes_on_and_stops_at_the_end(
    service: Service, web: aiohttp.ClientSession, me: Person, endpoint: OpenAIEndpoint
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    token, seen = me.tokens.access_token, []
    async with event_source(service) as source:
        path = f"/v1/conversations/{await conversation(web)}/messages:send"
        await source.open("POST", path, token, {"content": "Hello"})
        async for event in source.events():
            seen.append(event)
            if event.text:
                break
    path = f"/v1/runs/{seen[0].data['event']['runId']}/events"
    gate.set()
    async with event_source(service) as source:
        assert await source.open("GET", path, token, last_event_id=seen[-1].id) == 200
        seen += [event async for event in source.events()]
    assert [event.id for event in seen] == [str(number) for number in range(1, len(seen) + 1)]
    assert seen[-1].data["event"]["completed"]["message"]["content"] == text_of(seen) == "Hello world"
    async with event_source(service) as source:
        assert await source.open("GET", path, token, last_event_id=seen[-1].id) == 204


async def test_a_repeated_request_attaches_to_its_run(
    service: Service, web: aiohttp.ClientSession, me: Person, endpoint: OpenAIEndpoint
) -> None:
    made = await conversation(web)
    first = await ask(service, me, made, requestId="1")
    assert await ask(service, me, made, request_id="1") == first
    assert len(endpoint.requests) == 1


async def test_an_answer_is_made_anew_and_its_branches_are_listed(
    service: Service, web: aiohttp.ClientSession, me: Person, endpoint: OpenAIEndpoint
) -> None:
    endpoint.script(answer("A1"), answer("A2"), answer("A3"))
    made = await conversation(web)
    old = (await ask(service, me, made))[0].data["event"]["started"]
    path = f"/v1/messages/{old['messageId']}:regenerate"
    async with event_source(service) as source:
        assert await source.open("POST", path, me.tokens.access_token, {"requestId": "1"}) == 200
        events = [event async for event in source.events()]
    assert [event.id for event in events] == [str(number) for number in range(1, len(events) + 1)]
    new = events[-1].data["event"]["completed"]["message"]
    assert new["content"] == text_of(events) == "A2"
    assert new["parentMessageId"] == old["userMessageId"]
    await ask(service, me, made, content="Other", editedMessageId=old["userMessageId"])
    branches = {"": ["Other", "A3"], old["messageId"]: ["Hello", "A1"], new["messageId"]: ["Hello", "A2"]}
    messages = f"/v1/conversations/{made}/messages"
    for leaf, said in branches.items():
        listed = await told(web.get(messages, params={"leafMessageId": leaf}))
        assert [message["content"] for message in listed["messages"]] == said
    listed = await told(web.get(messages, params={"all_branches": "true"}))
    assert [message["content"] for message in listed["messages"]] == ["Hello", "Other", "A1", "A2", "A3"]
    question = f"/v1/messages/{old['userMessageId']}:regenerate"
    assert await reason(web.post(question, json={}), 400) == "INVALID_FIELD"
    assert await reason(web.post(f"/v1/messages/{made}:regenerate", json={}), 404) == "MESSAGE_NOT_FOUND"


async def test_leaving_ends_nothing_but_the_stream(
    service: Service, web: aiohttp.ClientSession, me: Person, endpoint: OpenAIEndpoint
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    async with event_source(service) as source:
        path = f"/v1/conversations/{await conversation(web)}/messages:send"
        await source.open("POST", path, me.tokens.access_token, {"content": "Hello"})
        run_id = (await anext(source.events())).data["event"]["runId"]
    gate.set()
    assert (await me.watch(run_id))[-1].completed.message.content == "Hello world"


async def test_leaving_is_seen_at_once_by_whoever_wants_it_to_count(
    service: Service, web: aiohttp.ClientSession, me: Person, endpoint: OpenAIEndpoint
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    async with event_source(service) as source:
        path = f"/v1/conversations/{await conversation(web)}/messages:send"
        body = {"content": "Hello", "options": {"cancelOnDisconnect": True}}
        await source.open("POST", path, me.tokens.access_token, body)
        async for event in source.events():
            if event.text:
                break
    async with asyncio.timeout(1):
        await endpoint.requests[0].disconnected.wait()
    assert (await me.watch(event.data["event"]["runId"]))[-1].HasField("cancelled")


async def test_many_streams_at_once_are_whole(service: Service, me: Person, endpoint: OpenAIEndpoint) -> None:
    words = [f" {number}" for number in range(200)]
    endpoint.script(answer(*words, delay=0.001))
    async with signed_in(service, me.tokens.access_token) as web:
        made = [await conversation(web) for _ in range(32)]
    answers = await asyncio.gather(*(ask(service, me, each) for each in made))
    assert {text_of(events) for events in answers} == {"".join(words)}


async def test_a_stranger_s_conversation_is_not_found(web: aiohttp.ClientSession, stranger: Person) -> None:
    theirs = (await stranger.converse()).conversation_id
    assert await reason(web.get(f"/v1/conversations/{theirs}"), 404) == "CONVERSATION_NOT_FOUND"


# Bad input, at every path


def named(rule: HttpRule) -> str:
    return f"{rule.verb} {rule.template.text}"


def path_of(rule: HttpRule) -> str:
    path = rule.template.text
    for field in rule.template.fields:
        path = path.replace(f"{{{field}}}", str(uuid4()))
    return path


BODIES = {
    "no JSON": b"{",
    "no object": b"[]",
    "unknown field": b'{"no such field": 1}',
    "depth 101": b'{"options":' * 101,
    "no UTF-8": b'{"title": "\xff"}',
    "5 MiB": b"x" * (5 << 20),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("rule", RULES, ids=named)
async def test_a_wrong_body_is_refused(web: aiohttp.ClientSession, rule: HttpRule, body: bytes) -> None:
    call = web.request(rule.verb, path_of(rule), data=io.BytesIO(body), headers={"content-type": "application/json"})
    status = 413 if len(body) > 1 << 20 else 400
    assert await reason(call, status) in ("INVALID_FIELD", "BODY_TOO_LARGE")


@pytest.mark.parametrize("rule", RULES, ids=named)
@pytest.mark.parametrize("query", ["no_such_field=1", "page_size=x", "x", "%ff=1", "after_seq=1.5"])
async def test_a_wrong_query_is_refused(web: aiohttp.ClientSession, rule: HttpRule, query: str) -> None:
    assert await reason(web.request(rule.verb, f"{path_of(rule)}?{query}"), 400) == "INVALID_FIELD"


PUBLIC = ("Login", "Register", "RefreshTokens")


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.method.name not in PUBLIC], ids=named)
async def test_a_token_is_asked_for(nobody_s_web: aiohttp.ClientSession, rule: HttpRule) -> None:
    assert await reason(nobody_s_web.request(rule.verb, path_of(rule)), 401) == "TOKEN_INVALID"


async def test_a_zip_bomb_is_not_opened(web: aiohttp.ClientSession) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    call = web.post("/v1/conversations", data=b"\x1f\x8b" + bytes(1000), headers=headers)
    assert await reason(call, 415) == "MEDIA_TYPE_UNSUPPORTED"


# Beside the API, start and stop


async def test_health_and_readiness_are_told(nobody_s_web: aiohttp.ClientSession) -> None:
    assert await told(nobody_s_web.get("/healthz")) == {"status": "alive"}
    ready = await told(nobody_s_web.get("/readyz"))
    assert ready == {"status": "ready", "dependencies": {"database": "ok", "replica": "ok", "redis": "ok"}}


async def test_a_caller_s_address_is_in_the_log(service: Service, web: aiohttp.ClientSession) -> None:
    await told(web.get("/v1/models", headers={"x-request-id": "who-is-it", "x-chatback-peer": "8.8.8.8"}))
    (line,) = (line for line in service.said.splitlines() if "who-is-it" in line)
    assert "127.0.0.1" in line
    assert "8.8.8.8" not in line


async def test_a_service_that_stops_ends_streams_and_idle_connections(
    service: Service, tmp_path: Path, me: Person, endpoint: OpenAIEndpoint
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    settings = {**service.urls, "openai_base_url": endpoint.base_url, "drain_seconds": 0.5}
    with running(tmp_path / "data", **settings) as leaving:
        async with signed_in(leaving, me.tokens.access_token) as idle, event_source(leaving) as source:
            made = await conversation(idle)
            path = f"/v1/conversations/{made}/messages:send"
            await source.open("POST", path, me.tokens.access_token, {"content": "Hello"})
            leaving.signal()
            events = [event async for event in source.events()]
            assert await leaving.ended() == 0
        assert "Traceback" not in leaving.said
    assert (events[-1].name, events[-1].data["error"]["details"][0]["reason"]) == ("error", "REPLICA_DRAINING")


async def test_while_it_drains_it_is_not_ready_and_takes_no_new_runs(
    service: Service, tmp_path: Path, me: Person, endpoint: OpenAIEndpoint
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    with running(tmp_path / "data", **service.urls, openai_base_url=endpoint.base_url, drain_seconds=30) as leaving:
        async with signed_in(leaving, me.tokens.access_token) as web, event_source(leaving) as source:
            path = f"/v1/conversations/{await conversation(web)}/messages:send"
            await source.open("POST", path, me.tokens.access_token, {"content": "Hello"})
            leaving.signal()
            await asyncio.to_thread(_until_draining, leaving)
            another = f"/v1/conversations/{await conversation(web)}/messages:send"
            assert await reason(web.post(another, json={"content": "Hello"}), 503) == "REPLICA_DRAINING"
            assert (await told(web.get("/readyz"), 503))["dependencies"]["replica"] == "unavailable"
            gate.set()
            assert [event async for event in source.events()][-1].name == "completed"
        assert await leaving.ended() == 0


def _until_draining(leaving: Service) -> None:
    while "runs.draining" not in leaving.said:
        assert leaving.process.poll() is None


@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with spawned(tmp_path / "data", stderr=subprocess.PIPE, **{f"{kind}_port": port}) as process:
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == (
        f"chatback: can't listen on 127.0.0.1:{port}: it is in use or not allowed; "
        f"set CHATBACK_{kind.upper()}_HOST, CHATBACK_{kind.upper()}_PORT\n"
    )


async def test_the_greeting_says_where_it_is(service: Service) -> None:
    assert rest_url(service).startswith("http://127.0.0.1:")

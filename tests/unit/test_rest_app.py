"""A request over REST: it becomes the call that the contract says, and its end the right status."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from domain.errors import (
    ChatBackError,
    ConversationNotFound,
    CredentialsInvalid,
    CursorAhead,
    DatabaseUnavailable,
    EmailTaken,
    PasswordHashingBusy,
    PermissionMissing,
    RunInProgress,
)
from entrypoints.rest.answers import Answer
from tests.unit.web import ID, Web, serving_web

SECRET = "postgres://chatback:hunter2@db"
CONVERSATION = f"/v1/conversations/{ID}"


async def page() -> Answer:
    return Answer(200, b"page", b"text/plain")


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Web]:
    async with serving_web(pages={"/page": page}) as web:
        yield web


@pytest.fixture
def web(server: Web) -> Web:
    server.service.requests.clear()
    server.service.behave = server.service.nothing
    return server


def raising(error: BaseException) -> Callable[[], Awaitable[object]]:
    async def behave() -> object:
        raise error

    return behave


# What becomes of a request


async def test_a_path_s_values_are_fields(web: Web) -> None:
    reply = await web.call("GET", CONVERSATION)
    assert (reply.status, reply.json) == (200, {})
    assert [request.conversation_id for request in web.service.requests] == [ID]


async def test_a_body_is_the_message(web: Web) -> None:
    await web.call("POST", "/v1/conversations", {"title": "ä", "requestId": "1", "metadata": {"a": "b"}})
    (request,) = web.service.requests
    assert (request.title, request.request_id, dict(request.metadata)) == ("ä", "1", {"a": "b"})


async def test_no_body_is_an_empty_message(web: Web) -> None:
    assert (await web.call("POST", "/v1/conversations")).status == 200


async def test_a_body_in_chunks_is_taken(web: Web) -> None:
    async with web.connection() as connection:
        connection.send(
            web.request("POST", "/v1/conversations", content_length=None, transfer_encoding="chunked")
            + b'5\r\n{"tit\r\n'
        )
        await asyncio.sleep(0)
        connection.send(b'9\r\nle": "x"}\r\n0\r\n\r\n')
        assert (await connection.reply()).status == 200
    assert web.service.requests[0].title == "x"


async def test_an_answer_may_be_larger_than_a_request(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.service, "title", "x" * (8 << 20))
    assert len((await web.call("GET", CONVERSATION)).body) > 8 << 20


async def test_a_connection_is_kept(web: Web) -> None:
    async with web.connection() as connection:
        for _ in range(3):
            connection.send(web.request("GET", CONVERSATION))
            assert (await connection.reply()).status == 200


async def test_requests_that_come_together_are_answered_in_order(web: Web) -> None:
    async with web.connection() as connection:
        connection.send(
            web.request("GET", CONVERSATION, x_request_id="1") + web.request("GET", "/no", x_request_id="2")
        )
        replies = [await connection.reply(), await connection.reply()]
    assert [(reply.status, reply.headers["x-request-id"]) for reply in replies] == [(200, "1"), (404, "2")]


async def test_http_1_0_is_answered(web: Web) -> None:
    async with web.connection() as connection:
        connection.send(web.request("GET", CONVERSATION).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await connection.reply()).status == 200
        assert await connection.rest() == b""


# Metadata


async def test_what_a_call_needs_to_know_goes_along(web: Web) -> None:
    await web.call("GET", CONVERSATION, traceparent="00-1-2-01", x_request_id="abc", cookie="no")
    sent = web.service.metadata
    assert (sent["authorization"], sent["traceparent"]) == (web.authorization, "00-1-2-01")
    assert sent["x-request-id"] == "abc"
    assert "cookie" not in sent


async def test_nobody_may_speak_for_somebody_else(web: Web) -> None:
    reply = await web.call("GET", CONVERSATION, x_chatback_user="ada")
    assert (reply.status, reply.reason) == (403, "PERMISSION_MISSING")


async def test_the_peer_is_the_connection_s_whatever_the_request_says(web: Web) -> None:
    await web.call("GET", CONVERSATION, x_chatback_peer="8.8.8.8", x_forwarded_for="9.9.9.9")
    assert web.service.metadata["x-chatback-peer"] == "127.0.0.1"


@pytest.fixture(scope="module")
async def proxied() -> AsyncIterator[Web]:
    """The service behind proxies that it trusts."""
    async with serving_web(proxies=("127.0.0.1", "10.0.0.0/8")) as web:
        yield web


@pytest.mark.parametrize(
    ("forwarded", "peer"),
    [
        ("9.9.9.9", "9.9.9.9"),
        ("8.8.8.8, 9.9.9.9", "9.9.9.9"),
        ("8.8.8.8, 9.9.9.9, 10.1.2.3", "9.9.9.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("<script>", "unknown"),
        ("x" * 300, "unknown"),
        ("", "127.0.0.1"),
    ],
)
async def test_a_trusted_proxy_tells_the_peer(proxied: Web, forwarded: str, peer: str) -> None:
    await proxied.call("GET", CONVERSATION, x_forwarded_for=forwarded)
    assert proxied.service.metadata["x-chatback-peer"] == peer


async def test_a_request_id_is_echoed(web: Web) -> None:
    assert (await web.call("GET", CONVERSATION, x_request_id="abc-1")).headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("given", [None, "x" * 129, "a b", "ä"])
async def test_every_answer_has_a_request_id_and_the_call_has_the_same(web: Web, given: str | None) -> None:
    reply = await web.call("GET", CONVERSATION, x_request_id=given)
    assert reply.headers["x-request-id"] == web.service.metadata["x-request-id"] != given


@pytest.mark.parametrize("name", ["authorization", "traceparent", "x_chatback_user"])
async def test_a_value_that_grpc_cannot_carry_is_refused(web: Web, name: str) -> None:
    reply = await web.call("GET", CONVERSATION, **{name: "Bearer ä"})
    assert (reply.status, reply.reason) == (400, "INVALID_FIELD")


async def test_more_metadata_than_grpc_takes_is_refused(web: Web) -> None:
    reply = await web.call("GET", CONVERSATION, authorization=f"Bearer {'x' * 9000}")
    assert (reply.status, reply.reason) == (431, "HEADERS_TOO_LARGE")


# Errors


@pytest.mark.parametrize(
    ("error", "http", "status"),
    [
        (ConversationNotFound(), 404, "NOT_FOUND"),
        (EmailTaken(), 409, "ALREADY_EXISTS"),
        (CursorAhead(3), 400, "OUT_OF_RANGE"),
        (PermissionMissing(), 403, "PERMISSION_DENIED"),
        (DatabaseUnavailable(), 503, "UNAVAILABLE"),
        (PasswordHashingBusy(), 429, "RESOURCE_EXHAUSTED"),
        (CredentialsInvalid(), 401, "UNAUTHENTICATED"),
    ],
)
async def test_an_error_is_told_as_aip_193_has_it(web: Web, error: ChatBackError, http: int, status: str) -> None:
    web.service.behave = raising(error)
    reply = await web.call("GET", CONVERSATION)
    assert (reply.status, reply.json["error"]["code"], reply.json["error"]["status"]) == (http, http, status)
    assert reply.json["error"]["message"] == error.message
    info = reply.json["error"]["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["domain"], info.get("metadata", {})) == (error.reason, "chatback", error.metadata)


async def test_an_error_has_its_metadata(web: Web) -> None:
    web.service.behave = raising(RunInProgress(ID))  # type: ignore[arg-type]  # text will do
    reply = await web.call("GET", CONVERSATION)
    assert (reply.status, reply.json["error"]["details"][0]["metadata"]) == (400, {"run_id": ID})


async def test_a_wait_is_told_in_whole_seconds(web: Web) -> None:
    web.service.behave = raising(PasswordHashingBusy())
    assert (await web.call("POST", "/v1/auth:login", {})).headers["retry-after"] == "2"


async def test_who_is_not_signed_in_is_told_how(web: Web) -> None:
    reply = await web.call("GET", CONVERSATION, authorization=None)
    assert (reply.status, reply.reason) == (401, "TOKEN_INVALID")
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_defect_is_told_by_its_incident_alone(web: Web) -> None:
    web.service.behave = raising(RuntimeError(SECRET))
    reply = await web.call("GET", CONVERSATION)
    assert (reply.status, reply.reason) == (500, "INTERNAL")
    assert "hunter2" not in reply.body.decode()
    assert reply.json["error"]["details"][0]["metadata"]["incident_id"]


async def test_an_unknown_path_is_not_found(web: Web) -> None:
    for path in ("/", "/v1", "/v2/models", "/v1/conversations/", "//v1/conversations", "/v1/../v1/models", "*"):
        reply = await web.call("GET", path)
        assert (path, reply.status, reply.reason) == (path, 404, "PATH_UNKNOWN")


async def test_another_verb_is_told_which_are_taken(web: Web) -> None:
    for verb in ("PUT", "HEAD", "OPTIONS", "TRACE"):
        reply = await web.call(verb, CONVERSATION)
        assert (reply.status, reply.headers["allow"]) == (405, "DELETE, GET, PATCH")


async def test_a_page_answers_get_and_head_alone(web: Web) -> None:
    assert (await web.call("GET", "/page")).body == b"page"
    assert (await web.call("HEAD", "/page")).headers["content-length"] == "4"
    assert (await web.call("POST", "/page")).headers["allow"] == "GET, HEAD"


# Bad input, on every way in


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/auth:login", f"/v1/runs/{ID}:cancel", "/v1/auth:logout"])
@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b'"x"', b'{"no":1}', b"\xff", b'{"a":' * 101, b'{"email":1,"title":1}', b"[" * 5000]
)
async def test_a_body_that_is_not_the_message_is_refused(web: Web, path: str, body: bytes) -> None:
    reply = await web.call("POST", path, body)
    assert (reply.status, reply.reason) == (400, "INVALID_FIELD")
    assert not web.service.requests


@pytest.mark.parametrize("query", ["title=x", "alt=sse", "x", "%ff=1"])
async def test_a_query_is_refused_where_the_body_is_all(web: Web, query: str) -> None:
    assert (await web.call("POST", f"/v1/conversations?{query}", {})).status == 400


async def test_a_body_is_refused_where_none_is_taken(web: Web) -> None:
    assert (await web.call("GET", CONVERSATION, {})).status == 400
    assert (await web.call("DELETE", CONVERSATION, {})).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": None},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_encoding": "gzip"},
        {"content_encoding": "br"},
    ],
)
async def test_other_types_and_compressed_bodies_are_refused(web: Web, headers: dict[str, str | None]) -> None:
    reply = await web.call("POST", "/v1/conversations", {"title": "x"}, **headers)
    assert (reply.status, reply.reason) == (415, "MEDIA_TYPE_UNSUPPORTED")
    assert reply.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_the_media_type_may_have_parameters(web: Web, kind: str) -> None:
    assert (await web.call("POST", "/v1/conversations", {}, content_type=kind)).status == 200


# Other origins


@pytest.fixture
async def open_web() -> AsyncIterator[Web]:
    async with serving_web(origins=("https://chat.example.org",)) as web:
        yield web


async def test_a_page_of_a_listed_origin_may_call(open_web: Web) -> None:
    asked = await open_web.call(
        "OPTIONS",
        CONVERSATION,
        origin="https://chat.example.org",
        access_control_request_method="PATCH",
        access_control_request_headers="authorization,content-type",
    )
    assert (asked.status, asked.headers["access-control-allow-origin"]) == (200, "https://chat.example.org")
    answer = await open_web.call("GET", "/no", origin="https://chat.example.org")
    assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        ("https://evil.example.org", "GET", "authorization"),
        ("https://chat.example.org", "TRACE", "authorization"),
        ("https://chat.example.org", "GET", "x-mine"),
    ],
)
async def test_a_page_that_asks_for_too_much_is_told_in_the_words_of_the_api(
    open_web: Web, origin: str, method: str, headers: str
) -> None:
    asked = await open_web.call(
        "OPTIONS",
        CONVERSATION,
        origin=origin,
        access_control_request_method=method,
        access_control_request_headers=headers,
    )
    assert (asked.status, asked.reason) == (400, "PREFLIGHT_REFUSED")
    assert asked.headers["x-request-id"]
    assert ("access-control-allow-origin" in asked.headers) == (origin == "https://chat.example.org")


async def test_a_page_of_another_origin_may_not(open_web: Web) -> None:
    answer = await open_web.call("GET", CONVERSATION, origin="https://evil.example.org")
    assert "access-control-allow-origin" not in answer.headers


async def test_no_page_may_call_where_none_is_listed(web: Web) -> None:
    answer = await web.call("GET", CONVERSATION, origin="https://chat.example.org")
    assert "access-control-allow-origin" not in answer.headers

"""What never becomes a request: each is told why, in the words of the API, and the next one is served."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from entrypoints.rest import body, connection
from tests.unit.web import ID, MAX_BODY, Reply, Web, serving_web

PATH = f"/v1/conversations/{ID}"
GET = f"GET {PATH} HTTP/1.1\r\nhost: x\r\n"
POST = "POST /v1/conversations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Web]:
    async with serving_web() as web:
        yield web


@pytest.fixture
async def web(server: Web) -> AsyncIterator[Web]:
    """A server that serves the next one whatever the test did."""
    server.service.requests.clear()
    yield server
    assert (await server.call("GET", PATH)).status == 200


async def answer_to(web: Web, data: bytes) -> Reply:
    """Returns the answer, after which the connection must be closed."""
    async with web.connection() as talk:
        talk.send(data)
        reply = await talk.reply()
        assert await talk.rest() == b""
        return reply


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"hello\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        GET.encode() + b"bad header\r\n\r\n",
        GET.encode() + b"a: b\0c\r\n\r\n",
        POST.encode() + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        POST.encode() + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        POST.encode() + b"content-length: -1\r\n\r\n",
        POST.encode() + b"content-length: 1e3\r\n\r\n",
        POST.encode() + b"content-length: 99999999999999999999999\r\n\r\n",
        POST.encode() + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        POST.encode() + b"transfer-encoding: chunked\r\n\r\nx\r\n{}",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(web: Web, data: bytes) -> None:
    reply = await answer_to(web, data)
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    assert reply.reason == "NOT_HTTP"
    assert not web.service.requests


async def test_a_post_without_a_length_is_refused(web: Web) -> None:
    reply = await answer_to(web, POST.encode() + b'\r\n{"title": "x"}')
    assert (reply.status, reply.reason) == (411, "LENGTH_MISSING")
    assert not web.service.requests


@pytest.mark.parametrize(
    "data",
    [
        f"{GET}cookie: {'x' * 17_000}\r\n\r\n".encode(),
        f"{GET}{''.join(f'h{n}: {n}{chr(13)}{chr(10)}' for n in range(3000))}\r\n".encode(),
        f"GET /{'x' * 17_000} HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
        f"GET {PATH}?{'x' * 17_000} HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
        f"{GET}cookie: {'x' * 17_000}".encode(),
        b"GET /" + b"x" * 17_000,
    ],
)
async def test_a_head_past_16_kib_is_refused_whether_it_ends_or_not(web: Web, data: bytes) -> None:
    reply = await answer_to(web, data)
    assert (reply.status, reply.reason) == (431, "HEADERS_TOO_LARGE")


async def test_a_head_that_trickles_is_bounded_too(web: Web) -> None:
    async with web.connection() as talk:
        talk.send(GET.encode())
        for _ in range(20):
            talk.send(b"h: " + b"x" * 1000 + b"\r\n")
            await asyncio.sleep(0)
        assert (await talk.reply()).status == 431


async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(web: Web) -> None:
    content = b'{"title":"%b"}' % (b"x" * (MAX_BODY - 12))
    assert len(content) == MAX_BODY
    assert (await web.call("POST", "/v1/conversations", content)).status == 200
    reply = await web.call("POST", "/v1/conversations", content + b" ")
    assert (reply.status, reply.reason) == (413, "BODY_TOO_LARGE")
    assert reply.json["error"]["details"][0]["metadata"] == {"limit": str(MAX_BODY)}


async def test_a_large_body_is_refused_to_a_client_that_sends_all_of_it_first(web: Web) -> None:
    assert (await answer_to(web, web.request("POST", "/v1/conversations", b"x" * (5 << 20)))).status == 413


async def test_a_large_body_in_chunks_is_refused(web: Web) -> None:
    chunks = b"10000\r\n%b\r\n" % (b"x" * 0x10000) * 80 + b"0\r\n\r\n"
    head = web.request("POST", "/v1/conversations", content_length=None, transfer_encoding="chunked")
    reply = await answer_to(web, head + chunks)
    assert reply.status == 413


async def test_a_large_body_that_waits_to_be_asked_for_is_never_sent(web: Web) -> None:
    async with web.connection() as talk:
        talk.send(web.request("POST", "/v1/conversations", b"", expect="100-continue", content_length="9999999"))
        assert (await talk.head()).status == 413


async def test_a_body_that_waits_to_be_asked_for_is_asked_for(web: Web) -> None:
    async with web.connection() as talk:
        talk.send(web.request("POST", "/v1/conversations", b"", expect="100-continue", content_length="2"))
        assert (await talk.head()).status == 100
        talk.send(b"{}")
        assert (await talk.reply()).status == 200


async def test_a_head_that_takes_too_long_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.02)
    reply = await answer_to(web, GET.encode())
    assert (reply.status, reply.reason) == (408, "REQUEST_TOO_SLOW")


async def test_a_second_head_that_takes_too_long_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.02)
    async with web.connection() as talk:
        talk.send(web.request("GET", PATH))
        assert (await talk.reply()).status == 200
        talk.send(b"GET /")
        assert (await talk.reply()).status == 408


async def test_a_connection_that_says_nothing_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.02)
    assert (await answer_to(web, b"")).status == 408


async def test_a_body_that_takes_too_long_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.02)
    monkeypatch.setattr(body, "LINGER_SECONDS", 0.02)
    reply = await answer_to(web, web.request("POST", "/v1/conversations", b"{", content_length="9"))
    assert (reply.status, reply.reason) == (408, "REQUEST_TOO_SLOW")


async def test_a_client_that_leaves_in_the_middle_of_a_body_disturbs_nobody(web: Web) -> None:
    async with web.connection() as talk:
        talk.send(POST.encode() + b"content-length: 9\r\n\r\n{")
        await asyncio.sleep(0.01)
    assert not web.service.requests


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "x"])
async def test_an_upgrade_is_not_taken_up(web: Web, upgrade: str) -> None:
    reply = await web.call("GET", PATH, connection="upgrade", upgrade=upgrade)
    assert reply.status == 200


async def test_what_follows_a_body_is_no_header(web: Web) -> None:
    chunked = "transfer-encoding: chunked\r\nx-request-id: head\r\nconnection: close\r\n\r\n2\r\n{}\r\n0\r\n"
    reply = await answer_to(web, f"{POST}{chunked}x-request-id: trailer\r\n\r\n".encode())
    assert reply.headers["x-request-id"] == "head"

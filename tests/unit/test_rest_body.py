"""What is taken of requests' bodies, from whom, and how much of all of them at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from entrypoints.rest import body
from entrypoints.rest.body import Bodies, Incoming
from entrypoints.rest.refusals import Refused
from tests.unit.web import Web, serving_web

CHUNKED = {b"transfer-encoding": b"chunked", b"content-type": b"application/json"}


@pytest.fixture(scope="module")
async def web() -> AsyncIterator[Web]:
    async with serving_web() as serving:
        yield serving


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "LINGER_SECONDS", 0.02)


# Before a body


async def test_without_credentials_nothing_is_taken_of_a_body(web: Web) -> None:
    async with web.connection() as connection:
        connection.send(web.request("POST", "/v1/conversations", b"", content_length="4000000", authorization=None))
        reply = await connection.reply()
    assert (reply.status, reply.reason) == (401, "TOKEN_INVALID")
    assert (reply.headers["connection"], reply.headers["www-authenticate"]) == ("close", "Bearer")


async def test_where_there_is_nothing_no_body_is_taken(web: Web) -> None:
    async with web.connection() as connection:
        connection.send(web.request("POST", "/v1/nothing", b"", content_length="4000000"))
        assert (await connection.reply()).status == 404


async def test_without_credentials_and_body_the_connection_is_kept(web: Web) -> None:
    async with web.connection() as connection:
        for _ in range(2):
            connection.send(web.request("POST", "/v1/conversations", authorization=None))
            assert (await connection.reply()).status == 401


async def test_a_public_method_takes_a_body_from_anybody(web: Web) -> None:
    who = {"email": "ada@example.org", "password": "x"}
    assert (await web.call("POST", "/v1/auth:login", who, authorization=None)).status == 200


# All bodies together


def coming(*pieces: bytes) -> Incoming:
    """Returns a request whose body comes in these pieces, and then no further."""
    left: Iterator[bytes] = iter(pieces)

    async def receive() -> Any:
        piece = next(left, b"")
        if not piece:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": not piece.endswith(b"}")}

    return Incoming(CHUNKED, receive)


async def test_bodies_that_are_too_much_together_are_refused_and_told_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body, "FREE_BYTES", 10)
    bodies = Bodies(100, room=30)
    arriving = asyncio.create_task(bodies.taken(coming(b"x" * 40)).__aenter__())
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await bodies.taken(coming(b"x" * 11)).__aenter__()
    assert (refused.value.refusal.http, refused.value.headers) == (503, ((b"retry-after", b"1"),))
    async with bodies.taken(coming(b"x" * 9 + b"}")) as small:
        assert len(small) == 10
    arriving.cancel()
    await asyncio.wait([arriving])
    async with bodies.taken(coming(b"x" * 39 + b"}")) as large:
        assert len(large) == 40


async def test_a_body_that_has_become_a_message_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "FREE_BYTES", 0)
    bodies = Bodies(100, room=10)
    for _ in range(3):
        async with bodies.taken(coming(b"x" * 5, b"x" * 4 + b"}")):
            pass

"""Bodies of requests: bounded in size and time before anything is made of them."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Receive

from entrypoints.rest.answers import JSON
from entrypoints.rest.refusals import (
    BODY_INCOMPLETE,
    BODY_TOO_LARGE,
    MEDIA_TYPE_UNSUPPORTED,
    REQUEST_TOO_SLOW,
    Refused,
)

BODY_SECONDS = 20
"""How long a body may take to arrive."""
LINGER_SECONDS = 2
"""How long the rest of a refused body is taken, so that a client that only sends gets to read why."""

Headers = Mapping[bytes, bytes]


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """Returns the JSON text of a request, empty where there is none. Raises Refused."""
    declared = headers.get(b"content-length", b"")
    if declared == b"0" or (not declared and b"transfer-encoding" not in headers):
        return b""
    if declared and int(declared) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _all(receive, limit)
    except TimeoutError:
        raise Refused(REQUEST_TOO_SLOW, unread=True) from None
    if body:
        check_is_json(headers)
    return body


def check_is_json(headers: Headers) -> None:
    """Refuses other types, and encodings: what a compressed body becomes is not bounded by what is sent."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != JSON or headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused(MEDIA_TYPE_UNSUPPORTED, (b"accept", JSON), (b"accept-encoding", b"identity"))


async def discard(receive: Receive) -> None:
    """Takes what still comes of a refused body, for a moment."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass


def too_large(limit: int) -> Refused:
    """Returns the refusal that tells the limit in bytes."""
    return Refused(BODY_TOO_LARGE, unread=True, limit=str(limit))


async def _all(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(BODY_INCOMPLETE)
        body += message["body"]
        if len(body) > limit:
            raise too_large(limit)
        if not message["more_body"]:
            return bytes(body)

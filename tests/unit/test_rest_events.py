"""Server streams over REST, as an EventSource reads them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from chatback.v1 import run_pb2
from domain.errors import DatabaseUnavailable, RunNotFound
from entrypoints.rest import events
from tests.unit.test_rest_app import raising
from tests.unit.web import ID, Web, serving_web

EVENTS = f"/v1/runs/{ID}/events"
Events = Callable[[], AsyncIterator[run_pb2.RunEvent]]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Web]:
    async with serving_web() as web:
        yield web


@pytest.fixture
def web(server: Web) -> Web:
    server.service.requests.clear()
    server.service.behave = server.service.nothing
    server.service.events = server.service.no_events
    return server


def text(seq: int, piece: str) -> run_pb2.RunEvent:
    return run_pb2.RunEvent(run_id=ID, seq=seq, text_delta=run_pb2.TextDelta(text=piece))


def these(*shown: run_pb2.RunEvent, then: BaseException | None = None, wait: asyncio.Event | None = None) -> Events:
    """Returns a stream that shows these, waits, and ends in its way."""

    async def stream() -> AsyncIterator[run_pb2.RunEvent]:
        for event in shown:
            yield event
        if wait:
            await wait.wait()
        if then:
            raise then

    return stream


def lines(frame: bytes) -> dict[str, str]:
    assert frame.endswith(b"\n\n")
    return dict(line.split(": ", 1) for line in frame.decode().rstrip("\n").split("\n"))


async def test_an_event_has_its_seq_its_case_and_its_json(web: Web) -> None:
    web.service.events = these(
        text(7, "a\nb\r\u2028\U0001f600"), run_pb2.RunEvent(seq=8, cancelled=run_pb2.RunCancelled())
    )
    reply = await web.call("GET", EVENTS)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    first, second = (lines(frame + b"\n\n") for frame in reply.body.split(b"\n\n")[:-1])
    assert (first["id"], first["event"]) == ("7", "text_delta")
    assert json.loads(first["data"])["event"]["textDelta"] == {"text": "a\nb\r\u2028\U0001f600"}
    assert (second["id"], second["event"]) == ("8", "cancelled")


async def test_a_case_that_is_not_set_is_a_message(web: Web) -> None:
    web.service.events = these(run_pb2.RunEvent(seq=1))
    assert lines((await web.call("GET", EVENTS)).body)["event"] == "message"


async def test_events_are_sent_as_they_come(web: Web) -> None:
    wait = asyncio.Event()
    web.service.events = these(text(1, "a"), wait=wait)
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS))
        assert (await connection.head()).status == 200
        assert lines(await anext(connection.chunks()))["id"] == "1"
        wait.set()


async def test_nothing_on_the_way_keeps_or_delays_events(web: Web) -> None:
    web.service.events = these(text(1, "a"))
    headers = (await web.call("GET", EVENTS)).headers
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")


@pytest.mark.parametrize(("headers", "cursor"), [({}, 0), ({"last_event_id": "41"}, 41), ({"last_event_id": ""}, 0)])
async def test_the_last_event_s_id_is_the_cursor(web: Web, headers: dict[str, str], cursor: int) -> None:
    await web.call("GET", EVENTS, **headers)
    assert web.service.requests[0].after_seq == cursor


async def test_the_last_event_s_id_wins_over_the_url_that_was_first_asked_for(web: Web) -> None:
    await web.call("GET", f"{EVENTS}?after_seq=5", last_event_id="41")
    assert web.service.requests[0].after_seq == 41


@pytest.mark.parametrize("bad", ["x", "-1", "1.0", "2147483648", "9" * 5000, "1 2", "ä"])
async def test_a_bad_last_event_id_is_refused(web: Web, bad: str) -> None:
    reply = await web.call("GET", EVENTS, last_event_id=bad)
    assert (reply.status, reply.reason) == (400, "INVALID_FIELD")


async def test_a_last_event_id_means_nothing_to_a_method_without_a_cursor(web: Web) -> None:
    assert (await web.call("GET", f"/v1/conversations/{ID}", last_event_id="x")).status == 200


async def test_a_run_of_which_nothing_is_left_tells_an_event_source_to_stay_away(web: Web) -> None:
    reply = await web.call("GET", EVENTS, last_event_id="3")
    assert (reply.status, reply.body) == (204, b"")
    assert "content-type" not in reply.headers


async def test_a_stream_that_fails_at_once_has_a_real_status(web: Web) -> None:
    web.service.behave = raising(RunNotFound())
    reply = await web.call("GET", EVENTS)
    assert (reply.status, reply.reason) == (404, "RUN_NOT_FOUND")


async def test_a_stream_without_a_token_has_a_real_status(web: Web) -> None:
    assert (await web.call("GET", EVENTS, authorization=None)).status == 401


async def test_a_stream_that_fails_later_ends_with_the_error_as_an_event(web: Web) -> None:
    error = DatabaseUnavailable()
    error.metadata = {"run_id": ID, "last_seq": "1"}
    web.service.events = these(text(1, "a"), then=error)
    reply = await web.call("GET", EVENTS)
    _, last, _ = reply.body.split(b"\n\n")
    told = json.loads(lines(last + b"\n\n")["data"])["error"]
    assert (reply.status, lines(last + b"\n\n")["event"]) == (200, "error")
    assert (told["code"], told["status"], told["details"][0]["metadata"]["last_seq"]) == (503, "UNAVAILABLE", "1")


async def test_a_defect_later_is_told_by_its_incident_alone(web: Web) -> None:
    web.service.events = these(text(1, "a"), then=RuntimeError("hunter2"))
    reply = await web.call("GET", EVENTS)
    assert b"INTERNAL" in reply.body
    assert b"hunter2" not in reply.body


async def test_a_client_that_leaves_ends_the_call(web: Web) -> None:
    web.service.events = these(text(1, "a"), wait=asyncio.Event())
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS))
        await connection.head()
        assert web.service.open == 1
    await web.left()


async def test_a_client_that_leaves_before_the_first_event_ends_the_call(web: Web) -> None:
    web.service.events = these(wait=asyncio.Event())
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS))
        await web.watched()
    await web.left()


async def test_a_client_that_leaves_with_another_request_behind_the_stream_ends_the_call(web: Web) -> None:
    web.service.events = these(text(1, "a"), wait=asyncio.Event())
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS) + web.request("GET", "/no") * 2)
        await connection.head()
    await web.left()


async def test_a_quiet_stream_is_kept_alive_by_comments(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.01)
    wait = asyncio.Event()
    web.service.events = these(text(1, "a"), wait=wait)
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS))
        await connection.head()
        chunks = connection.chunks()
        assert lines(await anext(chunks))["id"] == "1"
        assert [await anext(chunks), await anext(chunks)] == [b":\n\n", b":\n\n"]
        wait.set()
        assert b"data" not in b"".join([chunk async for chunk in chunks])


async def test_a_stream_that_begins_quietly_begins_with_a_comment(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_SECONDS", 0.01)
    wait = asyncio.Event()
    web.service.events = these(wait=wait, then=RunNotFound())
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS))
        assert (await connection.head()).status == 200
        wait.set()
        assert b"event: error" in b"".join([chunk async for chunk in connection.chunks()])


async def test_a_client_that_does_not_read_holds_up_its_own_stream_alone(web: Web) -> None:
    made = 0

    async def endless() -> AsyncIterator[run_pb2.RunEvent]:
        nonlocal made
        while True:
            made += 1
            yield text(made, "x" * 50_000)

    web.service.events = endless
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS))
        await connection.head()
        before = -1
        while before != made:
            before = made
            await asyncio.sleep(0.05)
        assert made < 2000
        assert (await web.call("GET", f"/v1/conversations/{ID}")).status == 200
    await web.left()


async def test_a_stream_over_http_1_0_is_refused(web: Web) -> None:
    async with web.connection() as connection:
        connection.send(web.request("GET", EVENTS).replace(b"HTTP/1.1", b"HTTP/1.0"))
        reply = await connection.reply()
    assert (reply.status, reply.reason) == (426, "HTTP_TOO_OLD")
    assert not web.service.requests

"""What is reported: each call, each run and each token once, whatever comes of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from application import log_writer
from application.run_engine import RunEngine
from chatback.v1.conversation_service_pb2_grpc import add_ConversationServiceServicer_to_server
from domain.run import RunState
from entrypoints.grpc.pipeline import Pipeline
from tests.fakes.database import FakeDatabase
from tests.fakes.telemetry import FakeTelemetry
from tests.unit.edge import Gate, serving
from tests.unit.replica import Replica
from tests.unit.waiting import until
from tests.unit.web import Scripted, a_service

GET = "/chatback.v1.ConversationService/GetConversation"


@pytest.fixture
def telemetry() -> FakeTelemetry:
    return FakeTelemetry()


# Calls


@pytest.fixture
def gate(telemetry: FakeTelemetry) -> Gate:
    gate = Gate()
    plain = gate.pipeline
    gate.pipeline = Pipeline(plain._authenticator, plain._limiter, plain._clock, plain._streams, telemetry)
    return gate


@pytest.fixture
def service() -> Scripted:
    return a_service()


@pytest.fixture
async def channel(gate: Gate, service: Scripted) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[gate.pipeline])
    add_ConversationServiceServicer_to_server(service, server)
    async with serving(server, gate) as channel:
        yield channel


async def code_of(channel: grpc.aio.Channel, method: str = GET, *metadata: tuple[str, str]) -> grpc.StatusCode:
    call: Any = channel.unary_unary(method)
    code: grpc.StatusCode = await call(b"", metadata=metadata, timeout=5).code()
    return code


async def test_a_call_is_counted_by_its_code(
    gate: Gate, channel: grpc.aio.Channel, service: Scripted, telemetry: FakeTelemetry
) -> None:
    async def broken() -> None:
        raise RuntimeError

    signed = gate.metadata(service.caller)
    await code_of(channel, GET, *signed)
    await code_of(channel)
    service.behave = broken
    await code_of(channel, GET, *signed)
    assert telemetry.calls == {GET: 3}
    assert telemetry.handled == [(GET, "OK"), (GET, "UNAUTHENTICATED"), (GET, "INTERNAL")]
    assert telemetry.messages == {GET: 1}


async def test_calls_of_unknown_methods_are_counted_under_one_name(
    channel: grpc.aio.Channel, telemetry: FakeTelemetry
) -> None:
    for name in ("/a/b", "/chatback.v1.ChatService/No", "/x"):
        assert await code_of(channel, name) is grpc.StatusCode.UNIMPLEMENTED
    assert telemetry.handled == [("", "UNIMPLEMENTED")] * 3


# Runs


@pytest.fixture
async def replica(
    database: FakeDatabase, telemetry: FakeTelemetry, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Replica]:
    monkeypatch.setattr(log_writer, "RETRY_SECONDS", 0)
    async with Replica(database, telemetry=telemetry).at_work() as replica:
        yield replica


async def test_an_answer_is_counted_with_its_tokens(replica: Replica, telemetry: FakeTelemetry) -> None:
    await replica.answered("Rain", " to", "day")
    assert (telemetry.runs, telemetry.endings) == (1, [RunState.COMPLETED])
    assert (len(telemetry.first_tokens), len(telemetry.token_gaps)) == (1, 2)
    assert all(seconds >= 0 for seconds in (*telemetry.first_tokens, *telemetry.token_gaps))


async def test_an_answer_without_text_has_no_first_token(replica: Replica, telemetry: FakeTelemetry) -> None:
    await replica.answered()
    assert (telemetry.runs, telemetry.first_tokens) == (1, [])


async def test_a_run_that_is_cancelled_is_counted_as_such(replica: Replica, telemetry: FakeTelemetry) -> None:
    watcher = await replica.ask()
    (await replica.call()).say("Rain")
    run_id = (await watcher.next()).run_id
    replica.engine.cancel(run_id)
    await watcher.all()
    assert telemetry.endings == [RunState.CANCELLED]


async def test_a_round_of_the_log_is_counted_with_how_long_its_text_waited(
    replica: Replica, telemetry: FakeTelemetry
) -> None:
    await replica.ask()
    call = await replica.call()
    replica.log.flowing.clear()
    call.say("Rain")
    await asyncio.sleep(0.02)
    assert not telemetry.rounds
    replica.log.flowing.set()
    await until(lambda: telemetry.rounds)
    events, seconds = telemetry.rounds[0]
    assert events == 1
    assert seconds >= 0.02


def test_an_engine_that_nobody_watches_reports_to_nobody(database: FakeDatabase) -> None:
    engine: RunEngine = Replica(database).engine
    engine.telemetry.run_started()

"""What one caller may take from the running service without harm to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from chatback.v1 import auth_service_pb2 as pb
from tests.e2e.caller import PASSWORD, Client, Person, failure, until_text
from tests.e2e.service import Service, running
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

WHO = pb.GetCurrentUserRequest()
BURST = 20
STREAMS = 2


@pytest.fixture(scope="module")
def narrow(
    service: Service, model_server: OpenAIEndpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A replica beside the shared service that allows little, and hashes as slowly as production does."""
    with running(
        tmp_path_factory.mktemp("narrow") / "data",
        **service.urls,
        openai_base_url=model_server.base_url,
        calls_per_second=0.5,
        calls_burst=BURST,
        open_streams=STREAMS,
        password_hash_cost=10,
        model_gap_seconds=30,
        operator_email="narrow@localhost",
    ) as started:
        yield started


@pytest.fixture
async def near(narrow: Service) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the replica that allows little."""
    async with grpc.aio.insecure_channel(narrow.target) as connected:
        yield connected


@pytest.fixture
async def guest(me: Person, near: grpc.aio.Channel) -> Person:
    """The user, calling the replica that allows little."""
    return Person(near, pb.LoginResponse(tokens=me.tokens, user=me.user))


async def test_past_its_burst_a_caller_is_told_when_to_call_again(guest: Person) -> None:
    for _ in range(BURST):
        await guest.auth.GetCurrentUser(WHO)
    refusal = await failure(guest.auth.GetCurrentUser(WHO))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLS_TOO_FREQUENT")
    assert refusal.metadata == {"limit": "0.5"}
    assert refusal.retry_seconds
    assert 0 < refusal.retry_seconds <= 2
    await asyncio.sleep(refusal.retry_seconds)  # the promise is that time alone mends it
    assert await guest.auth.GetCurrentUser(WHO)


async def test_one_callers_limit_is_nobody_elses(guest: Person, stranger: Person, near: grpc.aio.Channel) -> None:
    calls = [guest.auth.GetCurrentUser(WHO) for _ in range(3 * BURST)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, pb.GetCurrentUserResponse) for each in answers) in (BURST, BURST + 1)
    assert await Client(near, stranger.tokens.access_token).auth.GetCurrentUser(WHO)


async def test_a_caller_has_so_many_open_streams_and_gets_a_place_back(guest: Person, endpoint: OpenAIEndpoint) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate))
    made = [(await guest.converse()).conversation_id for _ in range(STREAMS + 1)]
    calls = [guest.send(each) for each in made[:STREAMS]]
    for call in calls:
        await until_text(call)
    refusal = await failure(guest.send(made[-1]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAMS_TOO_MANY")
    assert refusal.metadata == {"limit": f"{STREAMS}"}
    assert refusal.retry_seconds
    calls[0].cancel()
    gate.set()
    async for _ in calls[1]:
        pass
    assert (await guest.ask(made[-1]))[-1].HasField("completed")
    assert len(endpoint.requests) == STREAMS + 1


async def test_many_passwords_at_once_are_refused_in_part_and_disturb_nobody(
    guest: Person, near: grpc.aio.Channel, endpoint: OpenAIEndpoint
) -> None:
    conversation = await guest.converse()
    request = pb.LoginRequest(email="nobody@example.org", password=PASSWORD)
    logins = asyncio.gather(*(failure(Client(near).auth.Login(request)) for _ in range(60)))
    events = await guest.ask(conversation.conversation_id)
    assert not logins.done()
    assert events[-1].completed.message.content == "Hello world"
    busy = [refusal for refusal in await logins if refusal.reason != "CREDENTIALS_INVALID"]
    assert {(refusal.code, refusal.reason) for refusal in busy} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "PASSWORD_HASHING_BUSY")
    }
    assert all(refusal.retry_seconds for refusal in busy)
    assert 22 <= 60 - len(busy) < 60

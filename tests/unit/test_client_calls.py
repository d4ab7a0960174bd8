"""What the client does about deadlines, failures, and services that are away or busy."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2

from chatback.client import ApiKey, ChatBack, ChatBackError, pauses
from chatback.v1 import auth_service_pb2
from chatback.v1.conversation_service_pb2 import CreateConversationRequest, CreateConversationResponse
from tests.unit.client_service import LOST, USER, WHO, Call, Scripted, client_of, logged_in, status

KEY = ApiKey("cb_key")
CHANGE = auth_service_pb2.ChangePasswordRequest(current_password="a", new_password="b")
BUSY = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "PASSWORD_HASHING_BUSY", retry=0.01)


@pytest.fixture(autouse=True)
def no_time_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for less between attempts."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)


async def failure(service: Scripted, seconds: float = 10) -> ChatBackError:
    """Returns how the service's GetCurrentUser fails."""
    async with client_of(service, credentials=KEY, call_seconds=seconds) as chat:
        with pytest.raises(ChatBackError) as caught:
            await chat.auth.GetCurrentUser(WHO)
    return caught.value


async def test_a_call_that_changes_nothing_is_repeated_while_the_service_is_away() -> None:
    service = Scripted(GetCurrentUser=[LOST, LOST, USER])
    async with client_of(service, credentials=KEY) as chat:
        assert await chat.auth.GetCurrentUser(WHO) == USER
    assert len(service.calls) == 3


async def test_a_call_that_is_not_idempotent_is_not_repeated() -> None:
    service = Scripted(ChangePassword=[LOST])
    async with client_of(service, credentials=KEY) as chat:
        with pytest.raises(ChatBackError):
            await chat.auth.ChangePassword(CHANGE)
    assert len(service.calls) == 1


async def created(request: CreateConversationRequest) -> list[Call]:
    """Returns the calls that it took, the first of which fails."""
    service = Scripted(CreateConversation=[LOST, CreateConversationResponse()])
    async with client_of(service, credentials=KEY) as chat:
        await chat.conversations.CreateConversation(request)
    return service.calls


async def test_a_request_is_given_a_request_id_and_keeps_it_when_it_is_repeated() -> None:
    request = CreateConversationRequest(title="t")
    first, second = (CreateConversationRequest.FromString(call.request) for call in await created(request))
    assert first == second
    assert first.title == "t"
    assert len(first.request_id) == 36
    assert not request.request_id


async def test_a_request_id_of_the_callers_own_is_left_alone() -> None:
    request = CreateConversationRequest(request_id="mine")
    assert [call.request for call in await created(request)] == [request.SerializeToString()] * 2


async def test_what_a_busy_service_did_not_do_is_repeated_after_the_time_it_asks_for() -> None:
    service = Scripted(Login=[BUSY, logged_in()])
    async with client_of(service) as chat:
        assert (await chat.auth.Login(auth_service_pb2.LoginRequest())).tokens.access_token == "access"


async def test_a_wait_that_goes_past_the_deadline_is_not_begun() -> None:
    service = Scripted(GetCurrentUser=[status(grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLS_TOO_FREQUENT", retry=60)])
    error = await failure(service)
    assert (error.reason, error.retry_after, len(service.calls)) == ("CALLS_TOO_FREQUENT", 60, 1)


async def test_a_service_that_does_not_answer_is_given_up_at_the_deadline() -> None:
    assert (await failure(Scripted(GetCurrentUser=[asyncio.Event()]), 0.05)).code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_service_is_told_the_deadline() -> None:
    service = Scripted(GetCurrentUser=[USER])
    async with client_of(service, credentials=KEY) as chat:
        await chat.auth.GetCurrentUser(WHO, timeout=5000)
    assert 4000 < service.calls[0].seconds <= 5000


async def test_a_service_that_stays_away_is_told_by_the_last_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 60)  # so that the next attempt would surely come too late
    error = await failure(Scripted(GetCurrentUser=[LOST]))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "")


async def test_a_failure_is_taken_apart() -> None:
    failed = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", field="title")
    violation = error_details_pb2.BadRequest.FieldViolation(field="title", description="is too long")
    failed.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    error = await failure(Scripted(GetCurrentUser=[failed]))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.message, error.metadata) == ("INVALID_FIELD", "as scripted", {"field": "title"})
    assert (list(error.field_violations), error.retry_after, error.request_id) == ([violation], None, "request")


async def test_the_reason_of_another_domain_is_none_of_ours() -> None:
    failed = status(grpc.StatusCode.INVALID_ARGUMENT)
    failed.details.add().Pack(error_details_pb2.ErrorInfo(reason="TOKEN_INVALID", domain="example.org"))
    assert (await failure(Scripted(GetCurrentUser=[failed]))).reason == ""


async def test_where_nothing_listens_a_call_fails_as_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 60)
    async with ChatBack("127.0.0.1:1", credentials=KEY) as chat:
        with pytest.raises(ChatBackError) as caught:
            await chat.auth.GetCurrentUser(WHO)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE

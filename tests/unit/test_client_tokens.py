"""How the client signs in and keeps signed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from chatback.client import ApiKey, ChatBackError, Password, TokenProvider, pauses, session
from chatback.v1 import auth_service_pb2
from chatback.v1.auth_service_pb2 import LogoutResponse, RegisterRequest, RegisterResponse
from tests.unit.client_service import (
    ENDED,
    LOST,
    REFUSED,
    USER,
    WHO,
    Scripted,
    client_of,
    logged_in,
    refreshed,
    status,
    tokens,
)

ADA = Password("ada@example.org", "a long passphrase")


@pytest.fixture(autouse=True)
def no_time_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for less between attempts."""
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.001)


def service(**scripts: list[object]) -> Scripted:
    """Plays a service where everything goes well but what is scripted."""
    well: dict[str, list[object]] = {
        "Login": [logged_in()],
        "RefreshTokens": [refreshed()],
        "Logout": [LogoutResponse()],
        "GetCurrentUser": [USER],
    }
    return Scripted(**{**well, **scripts})


async def tokens_used(playing: Scripted, credentials: object, times: int = 1) -> list[str]:
    """Returns the tokens that calls bear, made one after the other."""
    async with client_of(playing, credentials=credentials) as chat:
        for _ in range(times):
            await chat.auth.GetCurrentUser(WHO)
    return [call.token for call in playing.called("GetCurrentUser")]


async def refusal(playing: Scripted, credentials: object) -> ChatBackError:
    """Returns how a call fails."""
    with pytest.raises(ChatBackError) as caught:
        await tokens_used(playing, credentials)
    return caught.value


async def test_the_first_call_signs_in() -> None:
    playing = service()
    assert await tokens_used(playing, ADA, times=2) == ["access", "access"]
    assert [auth_service_pb2.LoginRequest.FromString(call.request) for call in playing.called("Login")] == [
        auth_service_pb2.LoginRequest(email=ADA.email, password=ADA.password)
    ]


async def test_calls_that_come_together_sign_in_once() -> None:
    playing = service()
    async with client_of(playing, credentials=ADA) as chat:
        await asyncio.gather(*(_user(chat.auth.GetCurrentUser(WHO)) for _ in range(20)))
    assert len(playing.called("Login")) == 1


async def test_what_is_public_needs_no_token() -> None:
    playing = service(Register=[RegisterResponse()])
    async with client_of(playing, credentials=ADA) as chat:
        await chat.auth.Register(RegisterRequest())
    assert [call.method for call in playing.calls] == ["Register"]


async def test_a_token_is_renewed_before_it_expires() -> None:
    assert await tokens_used(service(), tokens(5), times=2) == ["new", "new"]


async def test_calls_that_come_together_renew_once() -> None:
    playing = service()
    async with client_of(playing, credentials=tokens(5)) as chat:
        await asyncio.gather(*(_user(chat.auth.GetCurrentUser(WHO)) for _ in range(20)))
    assert [call.token for call in playing.called("GetCurrentUser")] == ["new"] * 20
    assert len(playing.called("RefreshTokens")) == 1


async def test_a_caller_who_gives_up_does_not_stop_the_renewal_for_others() -> None:
    answered = asyncio.Event()
    playing = service(RefreshTokens=[answered, refreshed()])
    async with client_of(playing, credentials=tokens(5)) as chat:
        calls = [asyncio.create_task(_user(chat.auth.GetCurrentUser(WHO))) for _ in range(2)]
        await playing.arrived.wait()
        calls[0].cancel()
        answered.set()
        await calls[1]
    assert [call.method for call in playing.calls] == ["RefreshTokens", "GetCurrentUser"]


async def test_the_newest_tokens_can_be_kept() -> None:
    async with client_of(service(), credentials=tokens(5)) as chat:
        await chat.auth.GetCurrentUser(WHO)
        assert chat.tokens is not None
        assert chat.tokens.refresh_token == "refresh of new"


async def test_a_token_that_is_refused_is_renewed_and_the_call_repeated() -> None:
    assert await tokens_used(service(GetCurrentUser=[REFUSED, USER]), tokens(3600)) == ["access", "new"]


async def test_a_call_that_is_refused_twice_is_not_repeated_again() -> None:
    playing = service(GetCurrentUser=[REFUSED])
    assert (await refusal(playing, tokens(3600))).reason == "TOKEN_INVALID"
    assert len(playing.called("GetCurrentUser")) == 2


async def test_where_the_session_has_ended_a_password_begins_another() -> None:
    playing = service(GetCurrentUser=[ENDED, USER], RefreshTokens=[ENDED], Login=[logged_in("one"), logged_in("two")])
    assert await tokens_used(playing, ADA) == ["one", "two"]


async def test_where_the_session_has_ended_tokens_alone_do_not_help() -> None:
    playing = service(GetCurrentUser=[ENDED, USER], RefreshTokens=[ENDED])
    assert (await refusal(playing, tokens(3600))).reason == "SESSION_ENDED"


async def test_a_wrong_password_is_tried_once() -> None:
    playing = service(Login=[status(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")])
    assert (await refusal(playing, ADA)).reason == "CREDENTIALS_INVALID"
    assert len(playing.called("Login")) == 1


async def test_a_call_waits_for_a_service_that_is_away_when_it_signs_in() -> None:
    assert await tokens_used(service(Login=[LOST, logged_in()]), ADA) == ["access"]


async def test_a_renewal_is_repeated_while_the_service_is_away() -> None:
    assert await tokens_used(service(RefreshTokens=[LOST, refreshed()]), tokens(5)) == ["new"]


async def test_while_a_renewal_fails_a_token_serves_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RENEWAL_SECONDS", 0.05)
    assert await tokens_used(service(RefreshTokens=[LOST]), tokens(19)) == ["access"]


async def test_new_tokens_that_seem_old_to_a_wrong_clock_are_used() -> None:
    playing = service(Login=[logged_in(seconds=-3600)])
    assert await tokens_used(playing, ADA, times=3) == ["access"] * 3
    assert not playing.called("RefreshTokens")


async def test_a_password_ends_its_session_when_the_client_closes() -> None:
    playing = service()
    await tokens_used(playing, ADA)
    assert [call.token for call in playing.called("Logout")] == ["access"]


async def test_a_session_that_was_begun_elsewhere_is_not_ended() -> None:
    playing = service()
    await tokens_used(playing, tokens(3600))
    assert not playing.called("Logout")


async def test_a_client_closes_although_the_service_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "GOODBYE_SECONDS", 0.05)
    await tokens_used(service(Logout=[status(grpc.StatusCode.UNKNOWN)]), ADA)


async def test_an_api_key_is_sent_as_it_is() -> None:
    assert await tokens_used(service(), ApiKey("cb_key")) == ["cb_key"]


async def test_an_api_key_that_is_refused_is_not_tried_again() -> None:
    playing = service(GetCurrentUser=[REFUSED])
    await refusal(playing, ApiKey("cb_key"))
    assert len(playing.calls) == 1


async def test_a_provider_is_asked_again_when_its_token_is_refused() -> None:
    given = iter(["old", "new"])

    async def provide() -> str:
        return next(given)

    assert await tokens_used(service(GetCurrentUser=[REFUSED, USER]), TokenProvider(provide)) == ["old", "new"]


def test_secrets_are_not_shown() -> None:
    assert "passphrase" not in repr(ADA)
    assert "cb_" not in repr(ApiKey("cb_key"))


async def _user(call: Awaitable[object]) -> object:
    return await call

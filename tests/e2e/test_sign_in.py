"""Signing in and out of the running service, and staying signed in."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Awaitable
from pathlib import Path

import grpc
import msgspec
import pytest

from chatback.v1 import auth_service_pb2 as pb
from chatback.v1 import chat_service_pb2, user_pb2
from tests.e2e.caller import PASSWORD, Client, Person, failure, sign_in, sign_up, until_text
from tests.e2e.service import Service, running
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

WHO = pb.GetCurrentUserRequest()


def refresh(client: Client, token: str) -> Awaitable[pb.RefreshTokensResponse]:
    return client.auth.RefreshTokens(pb.RefreshTokensRequest(refresh_token=token))


def change(person: Person, current: str, new: str) -> Awaitable[pb.ChangePasswordResponse]:
    return person.auth.ChangePassword(pb.ChangePasswordRequest(current_password=current, new_password=new))


async def test_who_registers_and_signs_in_is_the_admin_of_a_workspace(nobody: Client, me: Person) -> None:
    user = (await me.auth.GetCurrentUser(WHO)).user
    assert user == me.user
    assert user.role == user_pb2.ROLE_ADMIN
    assert user.display_name == "Ada"


async def test_each_registration_has_a_workspace_of_its_own(me: Person, stranger: Person) -> None:
    assert me.user.workspace_id != stranger.user.workspace_id


async def test_the_case_of_an_email_does_not_matter(channel: grpc.aio.Channel, nobody: Client, me: Person) -> None:
    assert (await sign_in(channel, me.user.email.upper())).user == me.user
    taken = pb.RegisterRequest(email=me.user.email.upper(), password=PASSWORD)
    assert (await failure(nobody.auth.Register(taken))).reason == "EMAIL_TAKEN"


async def test_of_many_who_register_one_email_at_once_one_succeeds(nobody: Client) -> None:
    request = pb.RegisterRequest(email="crowd@example.org", password=PASSWORD)
    answers = await asyncio.gather(*(nobody.auth.Register(request) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(answer, pb.RegisterResponse) for answer in answers) == 1


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("", "wrong horse battery staple"),
        ("", "short"),
        ("", "x" * 5000),
        ("", "nul\0nul\0nul\0nul"),
        ("unknown@example.org", PASSWORD),
        ("no address", PASSWORD),
        ("x" * 300 + "@example.org", PASSWORD),
    ],
)
async def test_whatever_is_wrong_with_credentials_the_answer_is_one(
    nobody: Client, me: Person, email: str, password: str
) -> None:
    refusal = await failure(nobody.auth.Login(pb.LoginRequest(email=email or me.user.email, password=password)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    assert refusal.message == "email or password is wrong"
    assert (refusal.metadata, refusal.fields) == ({}, [])


async def test_a_password_is_the_same_in_every_unicode_form(channel: grpc.aio.Channel, nobody: Client) -> None:
    composed = unicodedata.normalize("NFC", "pässwörd ünïcödé")
    request = pb.RegisterRequest(email="forms@example.org", password=unicodedata.normalize("NFD", composed))
    await nobody.auth.Register(request)
    assert (await sign_in(channel, "forms@example.org", composed)).user.email == "forms@example.org"


async def test_every_character_of_a_long_password_counts(channel: grpc.aio.Channel, nobody: Client) -> None:
    long = "𝄞" * 127
    await nobody.auth.Register(pb.RegisterRequest(email="long@example.org", password=long + "a"))
    other = pb.LoginRequest(email="long@example.org", password=long + "b")
    assert (await failure(nobody.auth.Login(other))).reason == "CREDENTIALS_INVALID"
    assert (await sign_in(channel, "long@example.org", long + "a")).user


async def test_a_password_made_to_be_slow_does_not_stop_the_service(nobody: Client, me: Person) -> None:
    marks = "a" + "\u0315" * 40_000 + "\u0300" * 40_000  # in this order, NFC takes time by the square of the length
    began = time.monotonic()
    slow = failure(nobody.auth.Login(pb.LoginRequest(email=me.user.email, password=marks)))
    refusal, _ = await asyncio.gather(slow, me.auth.GetCurrentUser(WHO))
    assert refusal.reason == "CREDENTIALS_INVALID"
    assert time.monotonic() - began < 3


async def test_after_logout_the_sessions_tokens_are_refused_at_once(nobody: Client, me: Person) -> None:
    await me.auth.Logout(pb.LogoutRequest())
    refusal = await failure(me.auth.GetCurrentUser(WHO))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED")
    assert (await failure(me.auth.Logout(pb.LogoutRequest()))).reason == "SESSION_ENDED"
    assert (await failure(refresh(nobody, me.tokens.refresh_token))).reason == "SESSION_ENDED"


async def test_logout_leaves_the_users_other_sessions_alone(channel: grpc.aio.Channel, me: Person) -> None:
    elsewhere = await sign_in(channel, me.user.email)
    await me.auth.Logout(pb.LogoutRequest())
    assert (await elsewhere.auth.GetCurrentUser(WHO)).user == me.user


async def test_logout_ends_the_sessions_streams_and_not_the_run(
    channel: grpc.aio.Channel, endpoint: OpenAIEndpoint, me: Person
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    elsewhere = await sign_in(channel, me.user.email)
    conversation = await me.converse()
    call = me.send(conversation.conversation_id)
    run_id = (await until_text(call))[0].run_id
    await me.auth.Logout(pb.LogoutRequest())
    assert (await asyncio.wait_for(failure(call), 5)).reason == "SESSION_ENDED"
    gate.set()
    assert (await elsewhere.watch(run_id))[-1].completed.message.content == "Hello world"


async def test_a_new_password_ends_the_other_sessions_alone(channel: grpc.aio.Channel, me: Person) -> None:
    elsewhere = await sign_in(channel, me.user.email)
    await change(me, PASSWORD, "another horse battery staple")
    assert (await failure(elsewhere.auth.GetCurrentUser(WHO))).reason == "SESSION_ENDED"
    assert (await failure(refresh(elsewhere, elsewhere.tokens.refresh_token))).reason == "SESSION_ENDED"
    assert (await me.auth.GetCurrentUser(WHO)).user == me.user
    assert (await refresh(me, me.tokens.refresh_token)).tokens.access_token


async def test_after_a_change_only_the_new_password_signs_in(channel: grpc.aio.Channel, me: Person) -> None:
    await change(me, PASSWORD, "another horse battery staple")
    old = pb.LoginRequest(email=me.user.email, password=PASSWORD)
    assert (await failure(me.auth.Login(old))).reason == "CREDENTIALS_INVALID"
    assert (await sign_in(channel, me.user.email, "another horse battery staple")).user == me.user


async def test_a_password_is_not_changed_without_the_current_one(channel: grpc.aio.Channel, me: Person) -> None:
    refusal = await failure(change(me, "wrong horse battery staple", "another horse battery staple"))
    assert refusal.reason == "CREDENTIALS_INVALID"
    assert (await sign_in(channel, me.user.email)).user == me.user


async def test_a_refresh_gives_both_tokens_anew_and_the_old_access_token_lives_on(
    channel: grpc.aio.Channel, me: Person
) -> None:
    fresh = (await refresh(me, me.tokens.refresh_token)).tokens
    assert fresh.refresh_token != me.tokens.refresh_token
    assert (await Client(channel, fresh.access_token).auth.GetCurrentUser(WHO)).user == me.user
    assert (await me.auth.GetCurrentUser(WHO)).user == me.user


async def test_a_refresh_whose_answer_was_lost_can_be_repeated(nobody: Client, me: Person) -> None:
    answers = await asyncio.gather(*(refresh(nobody, me.tokens.refresh_token) for _ in range(6)))
    assert len({answer.tokens.refresh_token for answer in answers}) == 1
    assert (await refresh(nobody, answers[0].tokens.refresh_token)).tokens


async def test_a_spent_refresh_token_ends_the_whole_session(channel: grpc.aio.Channel, me: Person) -> None:
    second = (await refresh(me, me.tokens.refresh_token)).tokens
    third = (await refresh(me, second.refresh_token)).tokens
    replay = await failure(refresh(me, me.tokens.refresh_token))
    assert (replay.code, replay.reason) == (grpc.StatusCode.UNAUTHENTICATED, "REFRESH_TOKEN_INVALID")
    assert (await failure(refresh(me, third.refresh_token))).reason == "SESSION_ENDED"
    for token in (me.tokens.access_token, second.access_token, third.access_token):
        assert (await failure(Client(channel, token).auth.GetCurrentUser(WHO))).reason == "SESSION_ENDED"


@pytest.mark.parametrize("place", ["session", "generation", "proof", "shape"])
async def test_a_forged_refresh_token_is_refused_and_harms_nobody(nobody: Client, me: Person, place: str) -> None:
    session, generation, proof = me.tokens.refresh_token.split(".")
    flipped = "A" if proof[0] != "A" else "B"
    forged = {
        "session": f"{me.user.user_id}.{generation}.{proof}",
        "generation": f"{session}.7.{proof}",
        "proof": f"{session}.{generation}.{flipped}{proof[1:]}",
        "shape": "x" * 100_000,
    }[place]
    assert (await failure(refresh(nobody, forged))).reason == "REFRESH_TOKEN_INVALID"
    assert (await refresh(nobody, me.tokens.refresh_token)).tokens


async def test_the_operator_signs_in_with_the_file_that_only_its_owner_reads(
    channel: grpc.aio.Channel, service: Service
) -> None:
    file = service.data_dir / "operator.json"
    assert file.stat().st_mode & 0o777 == 0o600
    operator = await sign_in(channel, **msgspec.json.decode(file.read_bytes()))
    assert operator.user.role == user_pb2.ROLE_OPERATOR


async def test_production_lets_the_operator_in_and_nobody_register(production: Service) -> None:
    async with grpc.aio.insecure_channel(production.target) as channel:
        request = pb.RegisterRequest(email="new@example.org", password=PASSWORD)
        refusal = await failure(Client(channel).auth.Register(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "REGISTRATION_CLOSED")
        credentials = msgspec.json.decode((production.data_dir / "operator.json").read_bytes())
        assert (await sign_in(channel, **credentials)).user.role == user_pb2.ROLE_OPERATOR


async def test_sessions_outlive_a_restart_and_ended_ones_stay_ended(data_dir: Path) -> None:
    with running(data_dir) as first:
        async with grpc.aio.insecure_channel(first.target) as channel:
            staying, leaving = await sign_up(channel), await sign_up(channel)
            conversation = await staying.converse("kept")
            await leaving.auth.Logout(pb.LogoutRequest())
    with running(data_dir) as second:
        async with grpc.aio.insecure_channel(second.target) as channel:
            back = Client(channel, staying.tokens.access_token)
            assert (await back.auth.GetCurrentUser(WHO)).user == staying.user
            gone = Client(channel, leaving.tokens.access_token)
            assert (await failure(gone.auth.GetCurrentUser(WHO))).reason == "SESSION_ENDED"
            fresh = Client(channel, (await refresh(back, staying.tokens.refresh_token)).tokens.access_token)
            missing = chat_service_pb2.GetRunRequest(run_id=conversation.conversation_id)
            assert (await failure(fresh.chat.GetRun(missing))).reason == "RUN_NOT_FOUND"

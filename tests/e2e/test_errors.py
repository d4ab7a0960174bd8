"""What the running service says to requests that are wrong: always the same shape, never a defect's text."""

from __future__ import annotations

import json
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from adapters.security.key_ring import KeyRing
from adapters.security.token_signer import JwtTokenSigner
from chatback.v1 import (
    auth_service_pb2,
    chat_service_pb2,
    conversation_service_pb2,
    error_reason_pb2,
    model_service_pb2,
)
from domain.identity import Caller, Role
from tests.e2e.caller import PASSWORD, Client, Failure, Person, ended, failure
from tests.e2e.service import Service
from tests.fakes.openai_endpoint import OpenAIEndpoint

FILES = (auth_service_pb2, conversation_service_pb2, chat_service_pb2, model_service_pb2)
PUBLIC = {"Register", "Login", "RefreshTokens"}
REASONS = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}
OTHER_REASONS = {
    "LoginRequest.email": "CREDENTIALS_INVALID",
    "LoginRequest.password": "CREDENTIALS_INVALID",
    "RefreshTokensRequest.refresh_token": "REFRESH_TOKEN_INVALID",
    "ChangePasswordRequest.current_password": "CREDENTIALS_INVALID",
    "CreateConversationRequest.assistant_id": "ASSISTANT_NOT_FOUND",
}
"""The fields of which a caller is not told that they are malformed: no value of that shape exists."""


@dataclass(frozen=True)
class Method:
    """An RPC, callable with bytes."""

    path: str
    name: str
    streams: bool
    request: type[Message]

    def __call__(self, channel: grpc.aio.Channel, data: bytes, token: str = "", **more: str) -> Any:
        """Calls with these bytes as the request; what comes back is not decoded."""
        kind: Any = channel.unary_stream if self.streams else channel.unary_unary
        metadata = [*more.items(), *([("authorization", f"Bearer {token}")] if token else [])]
        return kind(self.path)(data, metadata=metadata, timeout=30)


METHODS = {
    method.name: Method(
        f"/{service.full_name}/{method.name}", method.name, method.server_streaming, GetMessageClass(method.input_type)
    )
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def string_fields(descriptor: Any, *before: Any) -> Iterator[tuple[Any, ...]]:
    """Walks all strings of a message, those in messages within too."""
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*before, field)
        elif field.message_type and field.message_type.GetOptions().map_entry:
            yield from ((*before, field, part) for part in field.message_type.fields)
        elif field.message_type:
            yield from string_fields(field.message_type, *before, field)


STRINGS = {
    f"{name}.{'.'.join(field.name for field in path)}": (method, path)
    for name, method in METHODS.items()
    for path in string_fields(method.request.DESCRIPTOR)
}


def put(request: Message, path: tuple[Any, ...], value: str) -> None:
    """Sets a string, wherever in the message it is."""
    target: Any = request
    field, *rest = path
    if rest and rest[-1].containing_type.GetOptions().map_entry:
        key, held = (value, "v") if rest[-1].name == "key" else ("key", value)
        getattr(target, field.name)[key] = held
    elif rest:
        put(getattr(target, field.name), tuple(rest), value)
    elif field.is_repeated:
        getattr(target, field.name).append(value)
    else:
        setattr(target, field.name, value)


@pytest.fixture
async def valid(me: Person, endpoint: OpenAIEndpoint) -> Callable[[Method], Any]:
    """Makes requests that would succeed."""
    started = (await me.ask((await me.converse()).conversation_id))[0]
    values = {
        "conversation_id": started.started.conversation_id,
        "run_id": started.run_id,
        "message_id": started.started.message_id,
        "email": f"{uuid4()}@example.org",
        "content": "Hello",
        "password": PASSWORD,
        "current_password": PASSWORD,
        "new_password": "another horse battery staple",
        "refresh_token": me.tokens.refresh_token,
    }

    def make(method: Method) -> Any:
        known = method.request.DESCRIPTOR.fields_by_name
        return method.request(**{name: value for name, value in values.items() if name in known})

    return make


def check_shape(refusal: Failure) -> None:
    """Checks what every refusal of ours has."""
    assert refusal.domain == "chatback"
    assert refusal.reason in REASONS
    assert refusal.code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    assert refusal.request_id


@pytest.mark.parametrize("value", ["nul \0", "x" * 300_000], ids=["NUL", "long"])
@pytest.mark.parametrize("place", STRINGS)
async def test_a_string_that_is_none_or_too_long_is_refused_by_its_fields_name(
    me: Person, valid: Callable[[Method], Any], place: str, value: str
) -> None:
    method, path = STRINGS[place]
    request = valid(method)
    put(request, path, value)
    refusal = await failure(method(me.channel, request.SerializeToString(), me.tokens.access_token))
    check_shape(refusal)
    expected = OTHER_REASONS.get(f"{method.request.DESCRIPTOR.name}.{path[0].name}", "INVALID_FIELD")
    assert refusal.reason == expected
    if expected == "INVALID_FIELD":
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        (named,) = refusal.fields
        dotted = ".".join(field.name for field in path)
        assert dotted.startswith(named.partition("[")[0])
        assert value not in refusal.message


@pytest.mark.parametrize("value", ["", "no-id", "01a20000-0000-7000-8000-00000000000g", "{01a20000}", "1" * 32, "é"])
@pytest.mark.parametrize("place", [place for place in STRINGS if place.endswith(("conversation_id", "run_id"))])
async def test_what_is_no_id_is_refused_by_its_fields_name(
    me: Person, valid: Callable[[Method], Any], place: str, value: str
) -> None:
    method, path = STRINGS[place]
    request = valid(method)
    put(request, path, value)
    refusal = await failure(method(me.channel, request.SerializeToString(), me.tokens.access_token))
    check_shape(refusal)
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", [path[0].name])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"max_output_tokens": 1_000_001}, "max_output_tokens"),
        ({"max_passages": -1}, "max_passages"),
        ({"max_passages": 51}, "max_passages"),
        ({"collection_ids": [str(uuid4())] * 21}, "collection_ids"),
    ],
)
async def test_options_outside_their_limits_are_refused_by_name(
    me: Person, options: dict[str, Any], field: str
) -> None:
    conversation = await me.converse()
    call = me.send(conversation.conversation_id, options=chat_service_pb2.SendOptions(**options))
    assert (await failure(call)).fields == [f"options.{field}"]


@pytest.mark.parametrize(
    "fields",
    [
        {"title": "x" * 201},
        {"metadata": {f"{number}": "" for number in range(17)}},
        {"metadata": {"": ""}},
        {"metadata": {"Upper": ""}},
        {"metadata": {"k\n": ""}},
        {"metadata": {"k" * 65: ""}},
        {"metadata": {"k": "x" * 513}},
        {"request_id": "r" * 256},
        {"request_id": "two words"},
        {"request_id": "ünicode"},
        {"request_id": "line\n"},
    ],
    ids=str,
)
async def test_a_conversation_outside_its_limits_is_refused_by_name(me: Person, fields: dict[str, Any]) -> None:
    request = conversation_service_pb2.CreateConversationRequest(**fields)
    refusal = await failure(me.conversations.CreateConversation(request))
    assert refusal.fields[0].startswith(next(iter(fields)))


async def test_limits_include_their_last_value(me: Person, nobody: Client, endpoint: OpenAIEndpoint) -> None:
    metadata = {f"{number:02}{'k' * 62}": "𝄞" * 512 for number in range(16)}
    made = await me.converse("İ" * 200, metadata=metadata, request_id="~" * 255)
    options = chat_service_pb2.SendOptions(temperature=2.0, max_output_tokens=1_000_000, max_passages=50)
    assert (await me.ask(made.conversation_id, options=options))[-1].HasField("completed")
    request = auth_service_pb2.RegisterRequest(
        email="İ" * 242 + "@example.org", password="𝄞" * 12, display_name="𝄞" * 100
    )
    assert (await nobody.auth.Register(request)).user.display_name == request.display_name


@pytest.mark.parametrize("password", ["short", "e\u0301" * 11, "x" * 129, ""], ids=["short", "NFC", "long", "none"])
async def test_a_new_password_has_12_to_128_characters(nobody: Client, me: Person, password: str) -> None:
    request = auth_service_pb2.RegisterRequest(email="p@example.org", password=password)
    assert (await failure(nobody.auth.Register(request))).fields == ["password"]
    change = auth_service_pb2.ChangePasswordRequest(current_password=PASSWORD, new_password=password)
    assert (await failure(me.auth.ChangePassword(change))).fields == ["new_password"]


@pytest.mark.parametrize("email", ["", "x", "@", "a@", "@b", "a b@c", "a@b@c", "a@b..c", "a\n@b"])
async def test_what_is_no_email_does_not_register(nobody: Client, email: str) -> None:
    request = auth_service_pb2.RegisterRequest(email=email, password=PASSWORD)
    assert (await failure(nobody.auth.Register(request))).fields == ["email"]


@pytest.mark.parametrize("name", METHODS)
async def test_bytes_that_are_no_request_are_an_invalid_argument(me: Person, name: str) -> None:
    first = METHODS[name].request.DESCRIPTOR.fields_by_number.get(1)
    not_utf8 = [b"\x0a\x02\xff\xfe"] if first and first.type == FieldDescriptor.TYPE_STRING else []
    for data in (b"\xff\xff", b"\x0a\x7f", b"\x0b" * 50, *not_utf8):
        refusal = await failure(METHODS[name](me.channel, data, me.tokens.access_token))
        check_shape(refusal)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])


@pytest.mark.parametrize("name", [name for name in METHODS if name != "Logout"])
async def test_no_damaged_request_breaks_the_service(me: Person, valid: Callable[[Method], Any], name: str) -> None:
    chance = random.Random(name)
    whole = valid(METHODS[name]).SerializeToString()
    for _ in range(25):
        data = bytearray(whole + chance.randbytes(chance.randrange(8)))
        for _ in range(chance.randrange(4) if data else 0):
            data[chance.randrange(len(data))] = chance.randrange(256)
        call = METHODS[name](me.channel, bytes(data), me.tokens.access_token)
        with suppress(grpc.aio.AioRpcError):
            await ended(call)
        assert await call.code() not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, bytes(data)


async def test_a_request_past_4_mib_is_refused(me: Person) -> None:
    conversation = await me.converse()
    refusal = await failure(me.send(conversation.conversation_id, "x" * (5 << 20)))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_past_16_kb_are_refused_and_the_connection_goes_on(me: Person) -> None:
    who = METHODS["GetCurrentUser"]
    refusal = await failure(who(me.channel, b"", me.tokens.access_token, **{"x-much": "x" * 40_000}))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await who(me.channel, b"", me.tokens.access_token, **{"x-much": "x" * 12_000})


@pytest.mark.parametrize("path", ["/chatback.v1.AuthService/Nothing", "/chatback.v1.Nothing/Get", "/x", "/a/b/c"])
async def test_an_unknown_method_is_unimplemented(me: Person, path: str) -> None:
    refusal = await failure(Method(path, "", False, Message)(me.channel, b"", me.tokens.access_token))
    assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", [name for name in METHODS if name not in PUBLIC])
async def test_whatever_is_not_public_needs_a_token(channel: grpc.aio.Channel, name: str) -> None:
    refusal = await failure(METHODS[name](channel, b"\xff"))
    check_shape(refusal)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


def spoiled(me: Person) -> dict[str, str]:
    """Returns authorization metadata that look almost right."""
    header, payload, signature = me.tokens.access_token.split(".")
    unsigned = urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt"}).encode()).rstrip(b"=").decode()
    turned = "B" if signature[9] == "A" else "A"
    return {
        "no scheme": me.tokens.access_token,
        "another scheme": f"Basic {me.tokens.access_token}",
        "no token": "Bearer ",
        "words": "Bearer not a token",
        "a refresh token": f"Bearer {me.tokens.refresh_token}",
        "no signature": f"Bearer {header}.{payload}.",
        "no algorithm": f"Bearer {unsigned}.{payload}.",
        "another signature": f"Bearer {header}.{payload}.{signature[:9]}{turned}{signature[10:]}",
        "another payload": f"Bearer {header}.{payload[:-4]}AAAA.{signature}",
        "another header": f"Bearer {unsigned}.{payload}.{signature}",
        "too long": f"Bearer {header}.{payload * 10}.{signature}",
        "padding": f"Bearer {header}.{payload}.{signature}==",
    }


SPOILED = (
    "no scheme", "another scheme", "no token", "words", "a refresh token", "no signature", "no algorithm",
    "another signature", "another payload", "another header", "too long", "padding",
)  # fmt: skip


@pytest.mark.parametrize("how", SPOILED)
async def test_a_token_that_is_not_ours_is_refused(nobody: Client, me: Person, how: str) -> None:
    metadata = (("authorization", spoiled(me)[how]),)
    request = auth_service_pb2.GetCurrentUserRequest()
    refusal = await failure(nobody.auth.GetCurrentUser(request, metadata=metadata))
    check_shape(refusal)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_token_lasts_to_its_expiry(service: Service, channel: grpc.aio.Channel, me: Person) -> None:
    signer, who, now = JwtTokenSigner(await ring_of(service)), caller(me), datetime.now(UTC)
    ours = signer.access_token(who, now, now + timedelta(minutes=10))
    assert await METHODS["GetCurrentUser"](channel, b"", ours)
    expired = signer.access_token(who, now - timedelta(minutes=10), now - timedelta(seconds=1))
    assert (await failure(METHODS["GetCurrentUser"](channel, b"", expired))).reason == "TOKEN_INVALID"


async def test_a_token_of_another_deployment_is_refused(channel: grpc.aio.Channel, me: Person) -> None:
    now = datetime.now(UTC)
    foreign = JwtTokenSigner(KeyRing(Ed25519PrivateKey.generate(), b"", b"", b""))
    token = foreign.access_token(caller(me), now, now + timedelta(minutes=10))
    assert (await failure(METHODS["GetCurrentUser"](channel, b"", token))).reason == "TOKEN_INVALID"


def caller(me: Person) -> Caller:
    session_id = UUID(me.tokens.refresh_token.partition(".")[0])
    return Caller(UUID(me.user.workspace_id), UUID(me.user.user_id), session_id, Role.ADMIN)


async def ring_of(service: Service) -> KeyRing:
    """Returns the deployment's keys, which development keeps unsealed in the database."""
    connection = await asyncpg.connect(service.urls["database_url"], timeout=10)
    try:
        stored = await connection.fetchval("SELECT value FROM deployment_keys WHERE name = 'signing'")
    finally:
        await connection.close()
    return KeyRing(Ed25519PrivateKey.from_private_bytes(stored[1:]), b"", b"", b"")


@pytest.mark.parametrize("given", ["my-id-1", "~" * 128])
async def test_a_request_id_comes_back_with_the_answer_and_with_the_refusal(me: Person, given: str) -> None:
    metadata = (("x-request-id", given),)
    call: Any = me.auth.GetCurrentUser(auth_service_pb2.GetCurrentUserRequest(), metadata=metadata)
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == given
    refused = me.chat.GetRun(chat_service_pb2.GetRunRequest(run_id=str(uuid4())), metadata=metadata)
    assert (await failure(refused)).request_id == given


@pytest.mark.parametrize("given", ["two words", "~" * 129, ""])
async def test_a_request_id_that_is_none_is_replaced_by_ours(me: Person, given: str) -> None:
    metadata = (("x-request-id", given),)
    refused = me.chat.GetRun(chat_service_pb2.GetRunRequest(run_id=str(uuid4())), metadata=metadata)
    assert UUID((await failure(refused)).request_id).version == 7

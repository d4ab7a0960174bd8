"""The way of every call: who is let in, what is let out, and what is given back at the end."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import capture_logs

from application.accounts import Accounts
from chatback.v1 import (
    auth_service_pb2,
    chat_service_pb2,
    conversation_service_pb2,
    model_service_pb2,
    run_pb2,
)
from chatback.v1.auth_service_pb2_grpc import AuthServiceServicer, AuthServiceStub, add_AuthServiceServicer_to_server
from chatback.v1.chat_service_pb2_grpc import ChatServiceServicer, ChatServiceStub, add_ChatServiceServicer_to_server
from chatback.v1.conversation_service_pb2_grpc import (
    ConversationServiceServicer,
    ConversationServiceStub,
    add_ConversationServiceServicer_to_server,
)
from domain.errors import DatabaseUnavailable, InvalidField
from entrypoints.grpc import pipeline
from entrypoints.grpc.auth import AuthServicer
from entrypoints.grpc.chat import ChatServicer
from entrypoints.grpc.conversations import ConversationServicer
from entrypoints.grpc.models import ModelServicer
from entrypoints.grpc.pipeline import PUBLIC_METHODS, current_caller
from entrypoints.grpc.server import SERVICES, add_health, build_server
from tests.builders import a_caller
from tests.fakes.password_hasher import FakePasswordHasher
from tests.unit.edge import LIFETIME, Gate, details, everything, guarded, info, serving
from tests.unit.replica import CATALOG, Replica
from tests.unit.waiting import until

SECRET = "postgres://chatback:hunter2@db"
Context = grpc.aio.ServicerContext[Any, Any]
GetRequest = conversation_service_pb2.GetConversationRequest
StreamRequest = chat_service_pb2.StreamRunRequest


class Scripted(ConversationServiceServicer, ChatServiceServicer, AuthServiceServicer):
    """A service that does what the test says."""

    def __init__(self) -> None:
        self.behave: Callable[[], Awaitable[str]] = self.nothing
        self.open = 0
        self.go_on = asyncio.Event()

    async def nothing(self) -> str:
        return ""

    async def GetConversation(
        self, request: GetRequest, context: Context
    ) -> conversation_service_pb2.GetConversationResponse:
        response = conversation_service_pb2.GetConversationResponse()
        response.conversation.title = await self.behave()
        return response

    async def Login(self, request: auth_service_pb2.LoginRequest, context: Context) -> auth_service_pb2.LoginResponse:
        await self.behave()
        return auth_service_pb2.LoginResponse()

    async def StreamRun(
        self, request: StreamRequest, context: Context
    ) -> AsyncIterator[chat_service_pb2.StreamRunResponse]:
        self.open += 1
        try:
            yield chat_service_pb2.StreamRunResponse(event=run_pb2.RunEvent(run_id=str(current_caller().user_id)))
            await self.go_on.wait()
            while text := await self.behave():
                event = run_pb2.RunEvent(text_delta=run_pb2.TextDelta(text=text))
                yield chat_service_pb2.StreamRunResponse(event=event)
        finally:
            self.open -= 1


def a_service() -> Scripted:
    return Scripted()  # type: ignore[abstract]  # what it leaves out answers UNIMPLEMENTED


class House:
    """The scripted service behind its gate, and stubs of somebody who may call."""

    def __init__(self, gate: Gate, service: Scripted, channel: grpc.aio.Channel) -> None:
        self.gate = gate
        self.service = service
        self.channel = channel
        self.caller = a_caller()
        self.conversations = ConversationServiceStub(channel)
        self.chat = ChatServiceStub(channel)
        self.auth = AuthServiceStub(channel)

    async def get(self, *metadata: tuple[str, str]) -> conversation_service_pb2.GetConversationResponse:
        response: conversation_service_pb2.GetConversationResponse = await self.conversations.GetConversation(
            GetRequest(), metadata=self.gate.metadata(self.caller, *metadata), timeout=5
        )
        return response

    def watch(self) -> Any:
        return self.chat.StreamRun(StreamRequest(), metadata=self.gate.metadata(self.caller), timeout=5)

    async def refusal(self, call: Awaitable[object] | None = None) -> grpc.aio.AioRpcError:
        """Returns the status with which the call, or a plain unary one, ends."""
        with pytest.raises(grpc.aio.AioRpcError) as end:
            await (call or self.get())
        return end.value


@pytest.fixture
async def house() -> AsyncIterator[House]:
    gate, service = Gate(), a_service()
    async with guarded(
        gate,
        lambda server: add_ConversationServiceServicer_to_server(service, server),
        lambda server: add_ChatServiceServicer_to_server(service, server),
        lambda server: add_AuthServiceServicer_to_server(service, server),
    ) as channel:
        yield House(gate, service, channel)


def raising(error: BaseException) -> Callable[[], Awaitable[str]]:
    async def behave() -> str:
        raise error

    return behave


async def for_ever() -> str:
    await asyncio.Event().wait()
    return ""


# Deny by default


def services() -> list[ServiceDescriptor]:
    """Every service that this server can hold, by its descriptor."""
    files = (
        auth_service_pb2,
        chat_service_pb2,
        conversation_service_pb2,
        model_service_pb2,
        health_pb2,
        reflection_pb2,
    )
    return [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]


METHODS = {f"/{service.full_name}/{method.name}": method for service in services() for method in service.methods}


def kind_of(method: MethodDescriptor) -> str:
    sides = ["stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)]
    return "_".join(sides)


def raw(channel: grpc.aio.Channel, name: str, kind: str = "unary_unary") -> Any:
    """Returns the method's callable for bytes as they are."""
    return getattr(channel, kind)(name)


def call_with_nothing(channel: grpc.aio.Channel, name: str, kind: str) -> Any:
    """Calls the method with an empty message and no metadata."""
    return raw(channel, name, kind)(iter([b""]) if kind.startswith("stream") else b"", timeout=5)


async def first_answer(call: Any) -> grpc.aio.AioRpcError | None:
    """Returns the status if the call is refused, None once something else is known of it."""
    try:
        await (call.read() if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return error
    return None


@pytest.fixture
async def whole(replica: Replica) -> AsyncIterator[grpc.aio.Channel]:
    """The whole server with all its services, over fakes."""
    gate = Gate(replica.database)
    hasher = FakePasswordHasher()
    accounts = Accounts(
        replica.unit_of_work, hasher, gate.signer, gate.clock, gate.ended, True, LIFETIME, 30 * LIFETIME
    )
    server = build_server(
        gate.pipeline,
        auth=AuthServicer(accounts),
        conversations=ConversationServicer(replica.conversations),
        chat=ChatServicer(replica.chat),
        models=ModelServicer(CATALOG),
        max_request_mb=4,
        with_reflection=True,
    )
    await add_health(server)
    async with serving(server, gate) as channel:
        yield channel


def test_the_list_of_public_methods_names_existing_ones_only() -> None:
    reflection_v1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    assert PUBLIC_METHODS - {reflection_v1} <= METHODS.keys()


def test_every_service_of_the_contract_is_served() -> None:
    assert {service.full_name for service in services() if service.full_name.startswith("chatback.")} == set(SERVICES)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - PUBLIC_METHODS))
async def test_a_method_that_is_not_on_the_list_needs_a_token(whole: grpc.aio.Channel, name: str) -> None:
    error = await first_answer(call_with_nothing(whole, name, kind_of(METHODS[name])))
    assert error is not None
    assert (error.code(), info(error).reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize("name", sorted(METHODS.keys() & PUBLIC_METHODS))
async def test_a_method_on_the_list_needs_no_token(whole: grpc.aio.Channel, name: str) -> None:
    call = call_with_nothing(whole, name, kind_of(METHODS[name]))
    error = await first_answer(call)
    assert error is None or info(error).reason not in ("TOKEN_INVALID", "INTERNAL")
    call.cancel()


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_library_s_service_that_nobody_listed_is_closed(kind: str) -> None:
    async def let_in(*_: object) -> bytes:
        return b"let in"

    def add(server: grpc.aio.Server) -> None:
        handler = getattr(grpc, f"{kind}_rpc_method_handler")(let_in)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("library.Admin", {"Shut": handler}),))

    async with guarded(Gate(), add) as channel:
        error = await first_answer(call_with_nothing(channel, "/library.Admin/Shut", kind))
    assert error is not None
    assert (error.code(), info(error).reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_method_that_does_not_exist_is_unimplemented(house: House) -> None:
    call = raw(house.channel, "/chatback.v1.ChatService/Nothing")(b"", timeout=5)
    assert (await house.refusal(call)).code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Bearer forged", "Basic dXNlcjpwYXNz", "forged"])
async def test_without_a_token_of_ours_nobody_is_let_in(house: House, authorization: str) -> None:
    call = house.conversations.GetConversation(GetRequest(), metadata=(("authorization", authorization),), timeout=5)
    error = await house.refusal(call)
    assert (error.code(), info(error).reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_the_scheme_is_read_in_any_case(house: House) -> None:
    (_, authorization), *_ = house.gate.metadata(house.caller)
    metadata = (("authorization", authorization.replace("Bearer", "bEARER")),)
    await house.conversations.GetConversation(GetRequest(), metadata=metadata, timeout=5)


async def test_a_session_that_ended_is_refused(house: House) -> None:
    house.gate.ended.add([house.caller.session_id])
    assert info(await house.refusal()).reason == "SESSION_ENDED"


async def test_a_stream_of_a_session_that_ended_is_refused(house: House) -> None:
    house.gate.ended.add([house.caller.session_id])
    assert info(await house.refusal(house.watch().read())).reason == "SESSION_ENDED"


async def test_every_call_runs_for_its_own_caller(house: House) -> None:
    async def who() -> str:
        caller = current_caller()
        await asyncio.sleep(0)
        assert current_caller() is caller
        return str(caller.user_id)

    house.service.behave = who
    callers = [a_caller() for _ in range(20)]
    answers = await asyncio.gather(
        *(
            house.conversations.GetConversation(GetRequest(), metadata=house.gate.metadata(caller), timeout=5)
            for caller in callers
        )
    )
    assert [answer.conversation.title for answer in answers] == [str(caller.user_id) for caller in callers]


async def test_a_stream_runs_for_its_caller(house: House) -> None:
    response = await house.watch().read()
    assert response.event.run_id == str(house.caller.user_id)


# Errors


@pytest.mark.parametrize("error", [RuntimeError(SECRET), ValueError(SECRET), LookupError(SECRET), OSError(SECRET)])
async def test_a_defect_is_told_by_its_incident_alone(house: House, error: Exception) -> None:
    house.service.behave = raising(error)
    with capture_logs() as logs:
        refusal = await house.refusal()
    incident = next(line["incident_id"] for line in logs if line["event"] == "call.broken")
    assert (refusal.code(), refusal.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (info(refusal).reason, dict(info(refusal).metadata)) == ("INTERNAL", {"incident_id": incident})
    assert "hunter2" not in everything(refusal)


async def test_a_defect_in_the_middle_of_a_stream_is_told_by_its_incident_alone(house: House) -> None:
    house.service.behave = raising(RuntimeError(SECRET))
    call = house.watch()
    await call.read()
    with capture_logs() as logs:
        house.service.go_on.set()
        refusal = await house.refusal(call.read())
    incident = next(line["incident_id"] for line in logs if line["event"] == "call.broken")
    assert (refusal.code(), refusal.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert dict(info(refusal).metadata) == {"incident_id": incident}
    assert "hunter2" not in everything(refusal)


async def test_a_defect_in_a_public_method_is_told_by_its_incident_alone(house: House) -> None:
    house.service.behave = raising(RuntimeError(SECRET))
    refusal = await house.refusal(house.auth.Login(auth_service_pb2.LoginRequest(), timeout=5))
    assert (refusal.code(), info(refusal).reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in everything(refusal)


async def test_an_error_of_ours_is_a_rich_status(house: House) -> None:
    house.service.behave = raising(InvalidField("title", "is required"))
    refusal = await house.refusal()
    assert (refusal.code(), refusal.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "title is required")
    violations = details(refusal)[error_details_pb2.BadRequest].field_violations
    assert [(violation.field, violation.description) for violation in violations] == [("title", "is required")]


async def test_an_error_of_ours_in_the_middle_of_a_stream_is_a_rich_status(house: House) -> None:
    error = DatabaseUnavailable()
    error.metadata = {"run_id": "r", "last_seq": "7"}
    house.service.behave = raising(error)
    house.service.go_on.set()
    call = house.watch()
    await call.read()
    refusal = await house.refusal(call.read())
    assert (refusal.code(), info(refusal).reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert dict(info(refusal).metadata) == {"run_id": "r", "last_seq": "7"}


@pytest.mark.parametrize("garbage", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(house: House, garbage: bytes) -> None:
    metadata = house.gate.metadata(house.caller)
    for name in ("/chatback.v1.ConversationService/GetConversation", "/chatback.v1.AuthService/Login"):
        refusal = await house.refusal(raw(house.channel, name)(garbage, metadata=metadata, timeout=5))
        assert (refusal.code(), info(refusal).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_bytes_that_are_no_message_are_an_invalid_argument_of_a_stream(house: House) -> None:
    method = raw(house.channel, "/chatback.v1.ChatService/StreamRun", "unary_stream")
    call = method(b"\xff", metadata=house.gate.metadata(house.caller), timeout=5)
    assert (await house.refusal(call.read())).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_do_not_get_past_the_gate(house: House) -> None:
    call = raw(house.channel, "/chatback.v1.ConversationService/GetConversation")(b"\xff", timeout=5)
    assert (await house.refusal(call)).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_call_that_takes_too_long_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "UNARY_SECONDS", 0.01)
    house.service.behave = for_ever
    refusal = await house.refusal()
    assert (refusal.code(), info(refusal).reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_stream_may_take_longer_than_a_call(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "UNARY_SECONDS", 0)
    house.service.go_on.set()
    call = house.watch()
    await call.read()
    assert await call.read() is grpc.aio.EOF


# Request ids and the log


async def trailing(call: Any) -> dict[str, str | bytes]:
    return dict(await call.trailing_metadata())


async def test_a_request_id_is_echoed(house: House) -> None:
    metadata = house.gate.metadata(house.caller, ("x-request-id", "abc-123"))
    call = house.conversations.GetConversation(GetRequest(), metadata=metadata, timeout=5)
    await call
    assert (await trailing(call))["x-request-id"] == "abc-123"


async def test_a_request_id_is_echoed_beside_an_error(house: House) -> None:
    house.service.behave = raising(RuntimeError())
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await house.get(("x-request-id", "abc-123"))
    assert [value for key, value in refusal.value.trailing_metadata() or () if key == "x-request-id"] == ["abc-123"]


async def test_a_request_id_is_echoed_at_the_end_of_a_stream(house: House) -> None:
    house.service.go_on.set()
    metadata = house.gate.metadata(house.caller, ("x-request-id", "abc-123"))
    call = house.chat.StreamRun(StreamRequest(), metadata=metadata, timeout=5)
    async for _ in call:
        pass
    assert (await trailing(call))["x-request-id"] == "abc-123"


@pytest.mark.parametrize("bad", ["", "x" * 129, "a b"])
async def test_a_request_id_that_is_none_is_replaced(house: House, bad: str) -> None:
    metadata = house.gate.metadata(house.caller, ("x-request-id", bad))
    call = house.conversations.GetConversation(GetRequest(), metadata=metadata, timeout=5)
    await call
    assert (await trailing(call))["x-request-id"] not in ("", bad)


async def test_every_call_is_logged_with_its_code(house: House) -> None:
    with capture_logs() as logs:
        await house.get()
        house.service.behave = raising(InvalidField("title", "is required"))
        await house.refusal()
        house.service.behave = raising(RuntimeError())
        await house.refusal()
    assert [line["code"] for line in logs if line["event"] == "call"] == ["OK", "INVALID_ARGUMENT", "INTERNAL"]


async def test_no_token_is_logged(house: House) -> None:
    metadata = house.gate.metadata(house.caller)
    with capture_logs() as logs:
        await house.conversations.GetConversation(GetRequest(), metadata=metadata, timeout=5)
    assert metadata[0][1].removeprefix("Bearer ") not in str(logs)


# Admission


async def test_too_many_calls_are_told_when_to_come_back() -> None:
    gate, service = Gate(calls=1), a_service()
    async with guarded(gate, lambda server: add_ConversationServiceServicer_to_server(service, server)) as channel:
        house = House(gate, service, channel)
        await house.get()
        refusal = await house.refusal()
    assert (refusal.code(), info(refusal).reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLS_TOO_FREQUENT")
    assert details(refusal)[error_details_pb2.RetryInfo].retry_delay.ToTimedelta().total_seconds() == 1


async def two_open_streams(house: House) -> list[Any]:
    calls = [house.watch(), house.watch()]
    for call in calls:
        await call.read()
    return calls


async def test_too_many_open_streams_are_refused(house: House) -> None:
    await two_open_streams(house)
    refusal = await house.refusal(house.watch().read())
    assert (refusal.code(), info(refusal).reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAMS_TOO_MANY")
    assert error_details_pb2.RetryInfo in details(refusal)


async def test_a_refused_stream_is_not_counted(house: House) -> None:
    (first, _) = await two_open_streams(house)
    for _ in range(3):
        await house.refusal(house.watch().read())
    first.cancel()
    await until_open(house, 1)
    assert await house.watch().read()


async def test_open_streams_are_counted_for_each_caller(house: House) -> None:
    await two_open_streams(house)
    house.caller = a_caller()
    assert await house.watch().read()


async def until_open(house: House, streams: int) -> None:
    """Returns when so many streams are counted, over all callers."""
    await until(lambda: len(house.gate.streams) == streams)


async def test_a_stream_that_ended_is_counted_no_more(house: House) -> None:
    calls = await two_open_streams(house)
    house.service.go_on.set()
    for call in calls:
        assert await call.read() is grpc.aio.EOF
    await until_open(house, 0)
    assert not len(house.gate.streams)


async def test_a_stream_that_failed_is_counted_no_more(house: House) -> None:
    house.service.behave = raising(RuntimeError())
    calls = await two_open_streams(house)
    house.service.go_on.set()
    for call in calls:
        await house.refusal(call.read())
    await until_open(house, 0)


async def test_a_stream_that_its_client_left_is_counted_no_more(house: House) -> None:
    for call in await two_open_streams(house):
        call.cancel()
    await until_open(house, 0)
    await until(lambda: not house.service.open)


async def test_a_stream_that_its_client_left_unread_is_counted_no_more(house: House) -> None:
    """The server then waits for room to write, and is not in the service's own code."""
    writing = asyncio.Semaphore(0)

    async def behave() -> str:
        writing.release()
        return "x" * 3_000_000

    house.service.behave = behave
    calls = await two_open_streams(house)
    house.service.go_on.set()
    for _ in calls:
        await writing.acquire()
    for call in calls:
        call.cancel()
    await until_open(house, 0)
    assert not house.service.open


async def test_health_is_not_limited() -> None:
    gate = Gate(calls=0, open_streams=0)
    server = grpc.aio.server(interceptors=[gate.pipeline])
    await add_health(server)
    async with serving(server, gate) as channel:
        answer = await raw(channel, "/grpc.health.v1.Health/Check")(b"", timeout=5)
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING


async def test_nobody_may_speak_for_somebody_else(house: House) -> None:
    error = await house.refusal(house.get(("x-chatback-user", "bob")))
    assert (error.code(), info(error).reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")


async def test_in_a_unary_call_the_same_error_is_one(house: House) -> None:
    house.service.behave = raising(grpc.aio.InternalError())
    assert info(await house.refusal()).reason == "INTERNAL"


async def test_a_call_that_was_refused_keeps_nothing_alive(house: House) -> None:
    """Nor does it wait for the collector, which seldom comes."""
    kept: list[weakref.ref[Kept]] = []

    async def behave() -> str:
        heavy = Kept()
        kept.append(weakref.ref(heavy))
        raise InvalidField("title", f"is {heavy}")

    house.service.behave = behave
    gc.disable()
    try:
        await house.refusal()
        await until(lambda: kept[0]() is None)
    finally:
        gc.enable()


class Kept:
    """Something that takes memory."""


async def test_a_client_that_is_gone_when_it_is_written_to_is_no_defect(house: House) -> None:
    batch_error = import_module("grpc._cython.cygrpc").ExecuteBatchError  # what a write to nobody raises
    assert issubclass(batch_error, grpc.aio.InternalError)
    house.service.behave = raising(batch_error("SendMessageOperation"))
    house.service.go_on.set()
    with capture_logs() as logs:
        call = house.watch()
        while await call.read() is not grpc.aio.EOF:
            pass
    assert [(line["event"], line.get("code")) for line in logs] == [("call", "CANCELLED")]

"""How the service starts, stops, dies and comes back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from chatback.v1 import auth_service_pb2, run_pb2
from entrypoints.embedded import embedded_servers
from tests.e2e.caller import Person, events_of, failure, sign_up, text_of, until_text
from tests.e2e.service import Service, running
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

SERVICES = ("AuthService", "ConversationService", "ChatService", "ModelService")
WHO = auth_service_pb2.GetCurrentUserRequest()


def health_of(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def reflection(channel: grpc.aio.Channel, version: str) -> Any:
    ask: Any = channel.unary_stream(  # to the server, a stream of one request
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return ask(reflection_pb2.ServerReflectionRequest(list_services=""), timeout=10)


@asynccontextmanager
async def visiting(service: Service) -> AsyncIterator[Person]:
    """Signs up with a service that this test started."""
    async with grpc.aio.insecure_channel(service.target) as channel:
        yield await sign_up(channel)


@asynccontextmanager
async def elsewhere(me: Person, service: Service) -> AsyncIterator[Person]:
    """Gives the same user, with the same tokens, at another process."""
    async with grpc.aio.insecure_channel(service.target) as channel:
        yield Person(channel, auth_service_pb2.LoginResponse(tokens=me.tokens, user=me.user))


@pytest.mark.parametrize("name", ["", *(f"chatback.v1.{name}" for name in SERVICES)])
async def test_the_service_and_each_of_its_parts_say_that_they_serve(channel: grpc.aio.Channel, name: str) -> None:
    answered = await health_of(channel).Check(health_pb2.HealthCheckRequest(service=name))
    assert answered.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_health_of_what_does_not_exist_is_not_found(channel: grpc.aio.Channel) -> None:
    refusal = await failure(health_of(channel).Check(health_pb2.HealthCheckRequest(service="chatback.v1.Nothing")))
    assert refusal.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_development_describes_its_contract(channel: grpc.aio.Channel, version: str) -> None:
    (response,) = [response async for response in reflection(channel, version)]
    listed = {service.name for service in response.list_services_response.service}
    assert {f"chatback.v1.{name}" for name in SERVICES} <= listed


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_production_does_not_describe_its_contract(production: Service, version: str) -> None:
    async with grpc.aio.insecure_channel(production.target) as channel:
        assert (await failure(reflection(channel, version))).code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_service_that_stops_lets_its_answers_end_and_leaves_nothing_behind(
    data_dir: Path, endpoint: OpenAIEndpoint
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    with running(data_dir, openai_base_url=endpoint.base_url, drain_seconds=30) as leaving:
        servers = psutil.Process(leaving.process.pid).children(recursive=True)
        assert {server.name() for server in servers} >= {"postgres", "valkey-server"}
        async with visiting(leaving) as me:
            call = me.send((await me.converse()).conversation_id)
            await until_text(call)
            another = (await me.converse()).conversation_id
            await not_serving(me.channel, leaving)
            refusal = await failure(me.send(another))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REPLICA_DRAINING")
            gate.set()
            assert (await events_of(call))[-1].completed.message.content == "Hello world"
        assert await leaving.ended() == 0
    assert psutil.wait_procs(servers, timeout=1)[1] == []
    assert not (data_dir / "sockets").is_symlink()


async def not_serving(channel: grpc.aio.Channel, leaving: Service) -> None:
    """Sends SIGTERM and waits until the service says of itself that it leaves."""
    health = health_of(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
    leaving.signal()
    assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_after_the_drain_time_an_answer_is_handed_over_to_another_replica(
    service: Service, tmp_path: Path, me: Person, endpoint: OpenAIEndpoint
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    with running(
        tmp_path / "data", **service.urls, openai_base_url=endpoint.base_url, chat_model="model-1", drain_seconds=0.2
    ) as leaving:
        async with elsewhere(me, leaving) as there:
            call = there.send((await there.converse()).conversation_id)
            seen = await until_text(call)
            endpoint.script(answer("Good", " evening"))
            leaving.signal(signal.SIGINT)
            refusal = await failure(call)
        assert await leaving.ended() == 0
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REPLICA_DRAINING")
    assert refusal.metadata == {"run_id": seen[0].run_id, "last_seq": f"{seen[-1].seq}"}
    await check_made_anew(me, seen, "REPLICA_DRAINING", "Good evening")


async def test_a_second_signal_does_not_wait_and_still_hands_over(
    service: Service, tmp_path: Path, me: Person, endpoint: OpenAIEndpoint
) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    with running(
        tmp_path / "data", **service.urls, openai_base_url=endpoint.base_url, chat_model="model-1", drain_seconds=60
    ) as leaving:
        async with elsewhere(me, leaving) as there:
            call = there.send((await there.converse()).conversation_id)
            seen = await until_text(call)
            endpoint.script(answer("Good", " evening"))
            await not_serving(there.channel, leaving)
            leaving.signal()
            refusal = await failure(call)
        assert await leaving.ended(10) == 0
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REPLICA_DRAINING")
    await check_made_anew(me, seen, "REPLICA_DRAINING", "Good evening")


async def test_after_a_kill_the_next_start_makes_every_answer_anew(data_dir: Path, endpoint: OpenAIEndpoint) -> None:
    endpoint.script(answer(*(f"{number} " for number in range(100_000)), delay=0.002))
    shown: list[list[run_pb2.RunEvent]] = []
    with running(data_dir, openai_base_url=endpoint.base_url) as killed:
        async with visiting(killed) as me:
            calls = [me.send((await me.converse()).conversation_id) for _ in range(5)]
            shown = [await until_text(call) for call in calls]
            watching = [asyncio.create_task(keep_reading(call, seen)) for call, seen in zip(calls, shown, strict=True)]
            await until_text(me.send((await me.converse()).conversation_id))
            endpoint.script(answer("Good", " evening"))
            killed.signal(signal.SIGKILL)
            assert await killed.ended() == -signal.SIGKILL
            assert set(await asyncio.gather(*watching)) == {grpc.StatusCode.UNAVAILABLE}
    with running(data_dir, openai_base_url=endpoint.base_url) as recovered:
        async with elsewhere(me, recovered) as back:
            for seen in shown:
                await check_made_anew(back, seen, "REPLICA_LOST", "Good evening")
            conversation_id = shown[0][0].started.conversation_id
            assert (await back.ask(conversation_id, "Go on"))[-1].HasField("completed")
    assert "stopping servers that an earlier run left behind" in recovered.said


async def keep_reading(call: Any, seen: list[run_pb2.RunEvent]) -> grpc.StatusCode:
    """Collects events until the stream breaks, and says how it broke."""
    with suppress(grpc.aio.AioRpcError):
        async for response in call:
            seen.append(response.event)  # noqa: PERF401 - what came before the break has to be kept
    code: grpc.StatusCode = await call.code()
    return code


async def check_made_anew(me: Person, seen: list[run_pb2.RunEvent], reason: str, text: str) -> None:
    """Checks a run that another process makes now, of which this much was seen."""
    events = await me.watch(seen[0].run_id)
    assert events[: len(seen)] == seen
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    (reset,) = [event for event in events if event.HasField("attempt_reset")]
    assert (reset.attempt_reset.reason, reset.attempt) == (reason, 2)
    assert text_of(events[reset.seq :]) == events[-1].completed.message.content == text
    run = await me.run(seen[0].run_id)
    assert (run.state, run.attempt) == (run_pb2.RUN_STATE_COMPLETED, 2)
    assert (await me.messages(run.conversation_id))[-1] == events[-1].completed.message


@pytest.mark.parametrize("name", ["postgres", "valkey"])
async def test_an_embedded_server_that_dies_stops_the_service_with_one_line(data_dir: Path, name: str) -> None:
    with running(data_dir, log_level="error") as service:
        children = psutil.Process(service.process.pid).children()
        next(child for child in children if child.name().startswith(name)).kill()
        assert await service.ended() == 1
        assert psutil.wait_procs(children, timeout=1)[1] == []
    lines = service.said.splitlines()
    assert lines[-1].startswith(f"chatback: the embedded {name} ended: ")
    assert "Traceback" not in service.said


@contextmanager
def external(folder: Path, name: str) -> Iterator[tuple[str, psutil.Process]]:
    """Runs postgres or valkey as a server that is not the service's own, and gives its URL and process."""
    with embedded_servers(folder, postgres=name == "postgres", valkey=name == "valkey", say=print) as started:
        url = f"postgresql://chatback@/chatback?host={folder / 'sockets'}&port=5432"
        yield (
            url if name == "postgres" else f"unix://{folder / 'sockets'}/valkey.sock",
            psutil.Process(started.children[0].process.pid),
        )


async def test_with_servers_elsewhere_none_is_embedded(service: Service, tmp_path: Path) -> None:
    with running(tmp_path / "data", **service.urls) as replica:
        assert psutil.Process(replica.process.pid).children() == []
    # Not even a password: the operator of that database has one already, in the other service's folder.
    assert list((tmp_path / "data").iterdir()) == []


async def test_without_redis_calls_go_on(
    service: Service, tmp_path: Path, me: Person, endpoint: OpenAIEndpoint
) -> None:
    with (
        external(tmp_path / "cache", "valkey") as (redis_url, redis),
        running(tmp_path / "data", **{**service.urls, "redis_url": redis_url}, calls_burst=100) as replica,
    ):
        async with elsewhere(me, replica) as there:
            conversation = await there.converse()
            kill_all(redis)
            for _ in range(20):
                assert (await there.auth.GetCurrentUser(WHO)).user == me.user
            assert (await there.ask(conversation.conversation_id))[-1].HasField("completed")
    assert "Traceback" not in replica.said


async def test_while_the_database_is_away_calls_are_unavailable_and_then_go_on(
    data_dir: Path, tmp_path: Path, service: Service
) -> None:
    with ExitStack() as first:
        database_url, database = first.enter_context(external(data_dir, "postgres"))
        urls = {**service.urls, "database_url": database_url}
        with running(tmp_path / "own", **urls) as serving:
            async with visiting(serving) as me:
                conversation = await me.converse()
                kill_all(database)
                for call in (me.auth.GetCurrentUser(WHO), me.send(conversation.conversation_id)):
                    refusal = await failure(call)
                    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                    assert refusal.message == "the database does not answer"
                first.close()
                with external(data_dir, "postgres"):
                    await until_answered(me)
                    assert (await me.ask(conversation.conversation_id))[-1].HasField("completed")
        assert "background.unavailable" in serving.said
        assert "Traceback" not in serving.said


async def until_answered(me: Person) -> None:
    """Calls until the service has its database again, for 5 seconds."""
    async with asyncio.timeout(5):
        while True:
            call: Any = me.auth.GetCurrentUser(WHO)
            if await call.code() is grpc.StatusCode.OK:
                return
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(0.05)


def kill_all(server: psutil.Process) -> None:
    """Kills a server, and waits for its children, who end when they are orphans."""
    family = [server, *server.children(recursive=True)]
    server.kill()
    psutil.wait_procs(family, timeout=10)

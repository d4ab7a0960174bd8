"""Several workers on the same two ports: started, replaced when they die, told to stop, and waited for."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import structlog

from entrypoints.backing_servers import Addresses
from entrypoints.errors import ServerError
from entrypoints.greeting import Ready
from entrypoints.listening import reserved_port
from entrypoints.private_folder import private_folder
from entrypoints.settings import Settings
from entrypoints.stop import Stop
from entrypoints.worker import INTERRUPTED

YOUNG_SECONDS = 10
"""A worker that dies before this age may do so again: it is replaced at once the first time, then ever more slowly."""
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30
LOOK_SECONDS = 1.0
"""How often the embedded servers are looked after."""
PATIENCE_SECONDS = 30
"""How long past its drain a worker may take to end before it is killed."""
IN_ORDER = (0, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)

log = structlog.get_logger()


def supervise(
    settings: Settings,
    addresses: Addresses,
    count: int,
    *,
    announce: Callable[[Ready], None],
    child_died: Callable[[], str | None],
) -> None:
    """Serves with `count` workers until SIGINT or SIGTERM, which all of them are told; a second one hurries them.

    Raises ServerError when a port is taken, a worker does not start the first time or does not stop, or an embedded
    server dies.
    """
    with (
        reserved_port("GRPC", settings.grpc_host, settings.grpc_port) as grpc_port,
        reserved_port("REST", settings.rest_host, settings.serves_rest_on) as rest_port,
        private_folder() as folder,
    ):
        places = {"CHATBACK_GRPC_PORT": str(grpc_port), "CHATBACK_REST_PORT": str(rest_port), **addresses.variables()}
        environment = {**os.environ, **settings.variables(), **places}
        command = [sys.executable, "-m", "entrypoints.worker"]
        crew = [
            WorkerProcess(number, [*command, str(number), str(folder)], environment) for number in range(1, count + 1)
        ]
        patience = settings.drain_seconds + PATIENCE_SECONDS
        asyncio.run(supervise_all(crew, announce=announce, child_died=child_died, patience=patience))


class WorkerProcess:
    """The process that is worker `number` at present."""

    def __init__(self, number: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.number = number
        self._command = command
        self._environment = environment
        self._process: Process | None = None
        self._line: socket.socket | None = None

    async def start(self) -> Ready:
        """Returns what it tells when it takes calls. Raises ServerError when it ends before."""
        self.close()
        self._line, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C at the terminal is for the supervisor, who passes it on once.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=theirs.fileno(), env=self._environment, start_new_session=True
            )
        self._line.setblocking(False)
        told = await _line_from(self._line)
        if not told:
            raise ServerError(f"worker {self.number} did not start: {_how(await self._process.wait())}")
        return msgspec.json.decode(told, type=Ready)

    async def keep(self) -> None:
        """Replaces it for ever, whenever it ends."""
        loop, young = asyncio.get_running_loop(), 0
        began = loop.time()
        while True:
            how = _how(await self.ended())
            lived = loop.time() - began
            young = young + 1 if lived < YOUNG_SECONDS else 0
            pause = _pause(young)
            log.warning("worker.ended", worker=self.number, how=how, after_seconds=round(lived, 1), again_in=pause)
            await asyncio.sleep(pause)
            began = loop.time()
            with suppress(ServerError):  # told by the next round
                await self.start()
                log.info("worker.ready", worker=self.number)

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                # Not by asyncio's own method, which takes the exit status away from the one that waits for it.
                os.kill(self._process.pid, number)

    def close(self) -> None:
        """Closes the line to it, which ends it if it still runs."""
        if self._line is not None:
            self._line.close()

    async def ended(self) -> int:
        """Waits for its end and returns the exit status; 0 for one that was never started."""
        return await self._process.wait() if self._process is not None else 0

    @property
    def failed(self) -> bool:
        """Says whether it ended in another way than it should when told to; a signal may come before it listens."""
        return self._process is not None and self._process.returncode not in IN_ORDER


async def supervise_all(
    crew: Sequence[WorkerProcess],
    *,
    announce: Callable[[Ready], None],
    child_died: Callable[[], str | None],
    patience: float,
) -> None:
    """Keeps all at work until a signal, then tells them, and waits `patience` seconds before it insists.

    Raises ServerError as `supervise` does.
    """
    stop = Stop()
    jobs = {"workers": _keep(crew, announce), "children": _watch(child_died)}
    tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
    for task in tasks:
        task.add_done_callback(stop.on_death)
    await stop.wait()
    for task in tasks:
        task.remove_done_callback(stop.on_death)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _dismiss(crew, stop, patience)
    for worker in crew:
        worker.close()
    stop.check()
    if failed := [worker.number for worker in crew if worker.failed]:
        raise ServerError(f"not all workers stopped in order: {failed}")


async def _keep(crew: Sequence[WorkerProcess], announce: Callable[[Ready], None]) -> None:
    """Starts all, the first one alone since it prepares things for the others, and keeps them for ever."""
    first, *others = crew
    ready = await first.start()
    await asyncio.gather(*(worker.start() for worker in others))
    announce(ready)
    await asyncio.gather(*(worker.keep() for worker in crew))


async def _watch(child_died: Callable[[], str | None]) -> None:
    while True:
        if line := child_died():
            raise ServerError(line)
        await asyncio.sleep(LOOK_SECONDS)


async def _dismiss(crew: Sequence[WorkerProcess], stop: Stop, patience: float) -> None:
    """Returns when all have ended: told once, told again when there is hurry or they take too long, killed at last."""
    _tell(crew, signal.SIGTERM)
    await stop.unless_hurried(_end_of(crew, patience))
    # Another signal: two equal ones that come at the same time are one.
    _tell(crew, signal.SIGINT)
    await _end_of(crew, PATIENCE_SECONDS)
    _tell(crew, signal.SIGKILL)
    await asyncio.gather(*(worker.ended() for worker in crew))


def _tell(crew: Sequence[WorkerProcess], number: signal.Signals) -> None:
    for worker in crew:
        worker.tell(number)


async def _end_of(crew: Sequence[WorkerProcess], seconds: float) -> None:
    """Waits for all to end, and no longer than this."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(worker.ended() for worker in crew))


async def _line_from(line: socket.socket) -> bytes:
    """Returns what was written before the end of a line, nothing where there is no such end."""
    told = b""
    while not told.endswith(b"\n"):
        piece = await asyncio.get_running_loop().sock_recv(line, 4096)
        if not piece:
            return b""
        told += piece
    return told


def _pause(young_deaths: int) -> float:
    """Returns how long to wait before the next try."""
    return min(PAUSE_SECONDS * 2 ** (young_deaths - 2), LONGEST_PAUSE_SECONDS) if young_deaths > 1 else 0.0


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

"""A replica as a process: behind fault proxies, on a leash."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.faults.backing import BackingServer
from tests.faults.proxy import FaultProxy, to_port, to_unix

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90
END_SECONDS = 60
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)


class DidNotStartError(Exception):
    """A replica ended before it took calls."""


class Replica:
    """One process of the service. `database`, `redis` and `front` are the proxies to what it needs and to itself.

    - `url` is where it serves REST, `target` where the proxy before its gRPC port is; that one stays over restarts.
    - `leaves` says that it was told to, and was not started since.
    - `acted` are events by failpoint, set when the replica is about to do there what it was told to.
    """

    def __init__(self, name: str, folder: Path, postgres: BackingServer, valkey: BackingServer) -> None:
        self.name = name
        self.url, self.port = "", 0
        self.database = FaultProxy(to_unix(lambda: postgres.socket))
        self.redis = FaultProxy(to_unix(lambda: valkey.socket))
        self.front = FaultProxy(to_port(lambda: self.port))
        self.acted: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.died_at = 0.0
        self.leaves = False
        self._folder = folder
        self._settings: dict[str, object] = {}
        self._stack = AsyncExitStack()
        self._process: asyncio.subprocess.Process | None = None
        self._control: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def target(self) -> str:
        """Where gRPC clients are to be pointed."""
        return f"127.0.0.1:{self.front.port}"

    @property
    def said(self) -> str:
        """Returns what it wrote to standard error so far, over all starts."""
        path = self._errors
        return path.read_text() if path.exists() else ""

    @property
    def runs(self) -> bool:
        """Says whether the process lives."""
        return self._process is not None and self._process.returncode is None

    @property
    def _errors(self) -> Path:
        return self._folder.with_name(f"{self.name}.err")

    async def open(self, **settings: object) -> None:
        """Makes the proxies; these settings are those of every start."""
        self._settings = settings
        for proxy in (self.database, self.redis, self.front):
            await self._stack.enter_async_context(proxy)
        self.channel = grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)
        self._stack.push_async_callback(self.channel.close)

    async def close(self) -> None:
        """Kills the process if it lives, and closes the proxies."""
        if self.runs:
            await self.kill()
        await self._stack.aclose()

    async def start(self) -> None:
        """Starts the process and returns when it takes calls. Raises DidNotStartError."""
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._spawn()
                self.port = int((await self._greeted("gRPC on ")).rpartition(":")[2])
                self.url = await self._greeted("REST on ")
        except BaseException:
            if self.runs:
                await self.kill()
            raise

    def is_away(self, error: grpc.aio.AioRpcError) -> bool:
        """Says whether a call failed as it may: UNAVAILABLE, or, where it met a server that just stops, CANCELLED.

        That is gRPC's own word for calls that it never gave to the service.
        """
        code = error.code()
        return code is grpc.StatusCode.UNAVAILABLE or (code is grpc.StatusCode.CANCELLED and self.leaves)

    async def _spawn(self) -> None:
        self.leaves = False
        ours, theirs = socket.socketpair()
        with theirs, self._errors.open("a") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.faults.replica",
                cwd=self._folder.parent,
                env={**self._environment(), "FAULTS_CONTROL": str(theirs.fileno())},
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                pass_fds=(theirs.fileno(),),
            )
        reader, self._control = await asyncio.open_connection(sock=ours)
        self._reading = asyncio.create_task(self._hear(reader))

    async def reachable(self) -> None:
        """Waits until the channel has found that the replica is there."""
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        async with asyncio.timeout(START_SECONDS):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await health.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
                    return
                await asyncio.sleep(0.1)

    def arm(self, failpoint: str, action: str, count: int = 1) -> None:
        """Has the process `kill` or `stop` itself when it comes to the failpoint for the count-th time from now."""
        self.acted.pop(failpoint, None)
        self._order(f"arm {failpoint} {action} {count}")

    def disarm(self, failpoint: str) -> None:
        """Takes the order back."""
        self._order(f"disarm {failpoint}")

    def signal(self, number: signal.Signals) -> None:
        """Tells it something: SIGTERM asks it to leave, SIGSTOP stops it, SIGCONT lets it go on."""
        assert self._process is not None
        self.leaves = self.leaves or number == signal.SIGTERM
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Kills the process, however it is; one that has died is as good."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> int:
        """Waits for the end of the process and returns its exit code, negative for a signal."""
        assert self._process is not None
        assert self._reading is not None
        async with asyncio.timeout(END_SECONDS):
            code = await self._process.wait()
            await self._reading
        self.front.cut()
        return code

    def _order(self, line: str) -> None:
        assert self._control is not None
        self._control.write(f"{line}\n".encode())

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionResetError):  # it died with an order unread
            while line := await reader.readline():
                self.acted[line.decode().strip()].set()
        self.died_at = time.monotonic()
        assert self._control is not None
        self._control.close()

    async def _greeted(self, words: str) -> str:
        """Returns the address behind these words of the greeting."""
        assert self._process is not None
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if words in line:
                return line.partition(words)[2].partition(",")[0].strip()
        await self.ended()
        raise DidNotStartError(f"{self.name} ended before it was ready: {self.said[-2000:]}")

    def _environment(self) -> dict[str, str]:
        settings = {
            "environment": "development",
            "data_dir": self._folder,
            "grpc_port": 0,
            "database_url": f"postgresql://chatback@127.0.0.1:{self.database.port}/chatback?sslmode=disable",
            "redis_url": f"redis://127.0.0.1:{self.redis.port}/0",
            "password_hash_cost": 4,
            "database_pool_size": 6,
            "calls_per_second": 1_000_000,
            "calls_burst": 1_000_000,
            "access_token_minutes": 60,
            "log_format": "json",
            **self._settings,
        }
        variables = {f"CHATBACK_{name.upper()}": str(value) for name, value in settings.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHATBACK_")}
        return {**inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}", **variables}

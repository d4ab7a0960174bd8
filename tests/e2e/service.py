"""The service as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
READY = "ChatBack is ready: gRPC on "


@dataclass(frozen=True, slots=True)
class Service:
    """A process that serves, and the file its standard error goes to."""

    process: subprocess.Popen[str]
    data_dir: Path
    target: str
    errors: Path

    @property
    def said(self) -> str:
        """Returns what it wrote to standard error so far."""
        return self.errors.read_text()

    @property
    def urls(self) -> dict[str, str]:
        """Returns the settings that lead another process to its embedded servers."""
        sockets = (self.data_dir / "sockets").resolve()
        return {
            "database_url": f"postgresql://chatback@/chatback?host={sockets}&port=5432",
            "redis_url": f"unix://{sockets}/valkey.sock",
        }

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Tells it something."""
        self.process.send_signal(number)

    async def ended(self, seconds: float = 30) -> int:
        """Waits for its end and returns the exit code."""
        return await asyncio.to_thread(self.process.wait, seconds)


@contextmanager
def running(data_dir: Path, **settings: object) -> Iterator[Service]:
    """Serves on a free port of 127.0.0.1 until the end of the block; whoever stopped it before checked the code."""
    errors = data_dir.with_name(f"{data_dir.name}-{uuid4().hex[:8]}.err")
    with errors.open("w") as output, spawned(data_dir, stdout=subprocess.PIPE, stderr=output, **settings) as process:
        service = Service(process, data_dir, _address(process, errors), errors)
        yield service
        if process.poll() is None:
            service.signal()
            assert process.wait(30) == 0, service.said


@contextmanager
def spawned(
    data_dir: Path, *, stdout: int | None = None, stderr: Any = None, **settings: object
) -> Iterator[subprocess.Popen[str]]:
    """Starts the command `api`; leaves no process behind, however the block ends."""
    command = [sys.executable, "-m", "entrypoints.cli", "api"]
    environment = _environment(data_dir, settings)
    with subprocess.Popen(
        command, cwd=data_dir.parent, env=environment, stdout=stdout, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _environment(data_dir: Path, settings: dict[str, object]) -> dict[str, str]:
    """Returns the settings of a developer's machine, with quick password hashes, and those that are given."""
    ours = {"environment": "development", "data_dir": data_dir, "grpc_port": 0, "password_hash_cost": 4, **settings}
    variables = {f"CHATBACK_{name.upper()}": str(value) for name, value in ours.items()}
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}", **variables}


def _address(process: subprocess.Popen[str], errors: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(READY):
            return line.removeprefix(READY).partition(",")[0]
    raise AssertionError(f"it ended before it was ready: {errors.read_text()}")

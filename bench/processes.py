"""Programs that are measured: pinned to a core, with a log, ended in order."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 60.0
STOP_SECONDS = 20.0
OPEN_FILES = 8192  # a stream is a connection to its model, on both ends


class BenchError(Exception):
    """Says in one line why nothing, or nothing honest, can be measured."""


def check_machine() -> None:
    """Raises BenchError where programs cannot be pinned; makes room for the connections."""
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        raise BenchError("measuring pins each program to a core: it needs Linux and taskset (package util-linux)")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchError("measuring needs the cores 0 and 1, one for the server and one for the load")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < OPEN_FILES:
        raise BenchError(f"measuring needs {OPEN_FILES} open files; this login may have {most} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, most))


def free_port() -> int:
    """Returns a port of the loopback interface on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    module: str, *words: str, port: int, core: int, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Runs a module of the project until the end of the block; yields its process id once it listens on the port."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            pinned(core, module, *words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=environment(settings or {}),
            start_new_session=True,
        )
    try:
        _wait_until_it_listens(process, port, log)
        yield process.pid
        if process.poll() is not None:
            raise BenchError(f"{module} ended while it was measured: {last_words(log)}")
    finally:
        _stop(process)


def output_of(module: str, *words: str, core: int, log: Path, seconds: float) -> bytes:
    """Runs a module to its end and returns what it printed. Raises BenchError with its last words if it fails."""
    with log.open("ab") as errors:
        try:
            done = subprocess.run(
                pinned(core, module, *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment({}),
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{module} was not done after {seconds:.0f} s: {last_words(log)}") from None
    if done.returncode:
        raise BenchError(f"{module} failed: {last_words(log)}")
    return done.stdout


def pinned(core: int, module: str, *words: str) -> list[str]:
    """Returns the command that runs a module of the project on one core alone."""
    return ["taskset", "-c", str(core), sys.executable, "-m", module, *words]


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which the project is found and only these settings are."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATBACK_", "OPENAI_", "PYTHON"))}
    return {**kept, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}", **settings}


def last_words(log: Path) -> str:
    """Quotes a log's last line and keeps where the rest was."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'it said nothing'} ({log})"


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _listens(port):
        if process.poll() is not None:
            raise BenchError(f"{log.stem} did not start: {last_words(log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{log.stem} takes no connections: {last_words(log)}")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

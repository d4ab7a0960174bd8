"""Server programs as children: in their own session, as nobody when root starts them, with a log, stopped in order."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from entrypoints.errors import OperatorError

START_SECONDS = 120.0  # a crash recovery may take long; a server that died is noticed at once
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01
LOG_BYTES = 10_000_000  # a log past this is begun anew at the next start


class EmbeddedError(OperatorError):
    """Says in one line, for the person who started the service, why an embedded server is not there."""


@dataclass(frozen=True, slots=True)
class Child:
    """A server process: its name for people, its log, and how it shows that it takes connections."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: Callable[[], bool]


def start(command: list[str], log: Path, ready: Callable[[int], bool]) -> Child:
    """Starts a server that writes to a log, named as the log is; `ready` is told its process id."""
    with _open_log(log) as output:
        process = subprocess.Popen(
            [*_as_nobody(), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
        )
    return Child(log.stem, process, log, lambda: ready(process.pid))


def run(command: list[str], log: Path, words: bytes = b"") -> None:
    """Runs a tool that makes something for a server; raises EmbeddedError with its last words when it fails."""
    with _open_log(log) as output, suppress(subprocess.TimeoutExpired):
        ended = subprocess.run(
            [*_as_nobody(), *command],
            input=words,
            stdout=output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
            timeout=START_SECONDS,
            check=False,
        )
        if ended.returncode == 0:
            return
    raise EmbeddedError(f"the embedded {log.stem} was not made: {last_words(log)}")


def wait_until_ready(child: Child) -> None:
    """Blocks until a server takes connections; raises EmbeddedError when it ended or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not child.ready():
        if child.process.poll() is not None:
            raise EmbeddedError(f"the embedded {child.name} did not start: {last_words(child.log)}")
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the embedded {child.name} takes no connections: {last_words(child.log)}")
        time.sleep(POLL_SECONDS)


@contextmanager
def stopped_at_the_end() -> Iterator[list[Child]]:
    """Stops the children put into the list: all are told first, then each is waited for."""
    children: list[Child] = []
    try:
        yield children
    finally:
        for child in children:
            child.process.send_signal(signal.SIGINT)  # PostgreSQL's fast stop, and a stop for Valkey
        for child in children:
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def stop_survivors(marks: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Stops the servers that a killed run left behind, known by a mark in their command lines."""
    survivors = [process for process in psutil.process_iter(["cmdline"]) if _is_marked(process, marks)]
    if survivors:
        say("stopping servers that an earlier run left behind")
    _signal(survivors, signal.SIGINT)
    stubborn = _still_running(survivors, STOP_SECONDS)
    _signal(stubborn, signal.SIGKILL)
    if pids := [process.pid for process in _still_running(stubborn, STOP_SECONDS)]:
        raise EmbeddedError(f"servers that an earlier run left behind do not end: processes {pids}")


def _is_marked(process: psutil.Process, marks: tuple[str, ...]) -> bool:
    program, *arguments = process.info["cmdline"] or [""]
    is_server = Path(program).name in ("initdb", "postgres", "valkey-server")
    return is_server and any(mark in argument for mark in marks for argument in arguments)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _still_running(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits until all have ended, but not longer than this, and returns those that have not."""
    deadline = time.monotonic() + seconds
    while (running := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        # One that ended may stay a zombie where nobody reaps, as in some containers.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _as_nobody() -> list[str]:
    """Says what goes before a server's command: nothing, or for root, whom PostgreSQL refuses, what makes it nobody.

    The one capability kept lets it reach a data folder below folders that are root's alone.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise EmbeddedError("as root, the embedded servers need the program setpriv (package util-linux)")
    nobody = pwd.getpwnam("nobody")
    user = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--no-new-privs"]
    return ["setpriv", *user, "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--"]


def give_to_servers_user(data: Path) -> None:
    """Makes a database folder belong to the user as whom PostgreSQL will run, also after ChatBack changed its own."""
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    if data.stat().st_uid != nobody.pw_uid:
        for path in (*data.rglob("*"), data):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)


def _environment() -> dict[str, str]:
    """Keeps PG* variables and the like, meant for other servers, away from ours."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


@contextmanager
def _open_log(log: Path) -> Iterator[int]:
    fresh = os.O_TRUNC if log.exists() and log.stat().st_size > LOG_BYTES else 0
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | fresh, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def last_words(log: Path) -> str:
    """Quotes a log's last line and says where the rest is."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return f"{next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')} (see {log})"

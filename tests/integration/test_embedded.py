"""The embedded servers, run for real: they start, stop, recover, and say what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil
import pytest
import redis

from entrypoints.embedded import EmbeddedError, EmbeddedUrls, embedded_servers

KILLED_RUN = """
import sys
from pathlib import Path
from entrypoints.embedded import embedded_servers
with embedded_servers(Path(sys.argv[1]), postgres=True, valkey=True, say=lambda line: None) as urls:
    print(urls.database_url, *(child.process.pid for child in urls.children), flush=True)
    sys.stdin.read()
"""


def both(folder: Path, said: list[str] | None = None) -> AbstractContextManager[EmbeddedUrls]:
    return embedded_servers(folder, postgres=True, valkey=True, say=print if said is None else said.append)


def only_valkey(folder: Path) -> AbstractContextManager[EmbeddedUrls]:
    return embedded_servers(folder, postgres=False, valkey=True, say=print)


async def query(urls: EmbeddedUrls | str, statement: str) -> object:
    connection = await asyncpg.connect(urls if isinstance(urls, str) else urls.database_url, timeout=10)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def ping(urls: EmbeddedUrls) -> bool:
    assert urls.redis_url is not None
    with redis.Redis.from_url(urls.redis_url) as client:
        return bool(client.ping())


def sockets_of(urls: EmbeddedUrls) -> Path:
    assert urls.database_url is not None
    return Path(parse_qs(urlsplit(urls.database_url).query)["host"][0])


@contextmanager
def a_run_to_kill(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, list[psutil.Process]]]:
    """Runs both servers from a process of its own; gives it, the database's URL and the servers' processes."""
    command = [sys.executable, "-c", KILLED_RUN, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=importable()) as run:
        assert run.stdout is not None
        url, *pids = run.stdout.readline().split()
        try:
            yield run, url, [psutil.Process(int(pid)) for pid in pids]
        finally:
            run.kill()


def importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def owner_and_mode(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_mode & 0o777


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder, shared because making a database takes most of a second, with a path no socket could have."""
    return tmp_path_factory.mktemp("a folder") / ("long" * 30) / "data"


async def test_both_servers_answer_from_a_long_path_with_spaces(folder: Path) -> None:
    with both(folder) as urls:
        assert await query(urls, "SELECT current_user::text") == "chatback"
        assert ping(urls)
        assert urls.died() is None


async def test_a_database_is_utf8_and_keeps_every_commit(folder: Path) -> None:
    with both(folder) as urls:
        settings = [await query(urls, f"SHOW {name}") for name in ("server_encoding", "fsync", "synchronous_commit")]
    assert settings == ["UTF8", "on", "on"]


async def test_the_login_can_take_on_the_roles_it_makes_and_is_no_superuser(folder: Path) -> None:
    with both(folder) as urls:
        await query(urls, "CREATE ROLE made NOLOGIN")
        await query(urls, "SET ROLE made")
        assert await query(urls, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


async def test_data_outlives_a_stop(folder: Path) -> None:
    with both(folder) as urls:
        await query(urls, "CREATE TABLE kept AS SELECT 42 AS answer")
    said: list[str] = []
    with both(folder, said) as urls:
        assert await query(urls, "SELECT answer FROM kept") == 42
    assert said == []


async def test_a_stop_leaves_no_process_and_no_socket(folder: Path) -> None:
    with both(folder) as urls:
        children, sockets = urls.children, sockets_of(urls)
    assert [child.process.returncode for child in children] == [0, 0]
    assert not sockets.exists()
    assert not (folder / "sockets").is_symlink()


def test_no_server_listens_on_the_network(folder: Path) -> None:
    with both(folder) as urls:
        listening = [psutil.Process(child.process.pid).net_connections("inet") for child in urls.children]
    assert listening == [[], []]


def test_a_ctrl_c_at_the_terminal_does_not_reach_them(folder: Path) -> None:
    with both(folder) as urls:
        assert os.getsid(0) not in [os.getsid(child.process.pid) for child in urls.children]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop its rights")
async def test_for_root_they_run_as_nobody_below_folders_that_are_roots_alone(folder: Path) -> None:
    with both(folder) as urls:
        assert await query(urls, "SELECT 1") == 1
        assert {psutil.Process(child.process.pid).username() for child in urls.children} == {"nobody"}
    assert owner_and_mode(folder) == (0, 0o700)


def test_only_what_is_asked_for_is_started(folder: Path) -> None:
    with only_valkey(folder) as urls:
        assert urls.database_url is None
        assert ping(urls)


def test_a_folder_in_use_is_refused_by_name(folder: Path) -> None:
    with only_valkey(folder) as urls:
        with pytest.raises(EmbeddedError, match="in use") as refusal, only_valkey(folder):
            pass
        assert str(folder) in str(refusal.value)
        assert ping(urls)


def test_a_file_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot use the data folder"), only_valkey(tmp_path / "file"):
        pass


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with (
        pytest.raises(EmbeddedError, match="cannot use the data folder /proc/chatback"),
        only_valkey(Path("/proc/chatback")),
    ):
        pass


async def test_a_killed_run_loses_no_commit_and_its_servers_are_stopped_at_the_next_start(folder: Path) -> None:
    with a_run_to_kill(folder) as (run, url, survivors):
        await query(url, "CREATE TABLE survived AS SELECT 42 AS answer")
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert not any(ended(process) for process in survivors)
        said: list[str] = []
        with both(folder, said) as urls:
            assert await query(urls, "SELECT answer FROM survived") == 42
            assert all(ended(process) for process in survivors)
        assert said == ["stopping servers that an earlier run left behind"]


async def test_a_database_server_that_was_killed_recovers(folder: Path) -> None:
    with a_run_to_kill(folder) as (run, url, servers):
        await query(url, "CREATE TABLE recovered AS SELECT 42 AS answer")
        for process in (psutil.Process(run.pid), *servers):
            process.kill()
        run.wait()
    with both(folder) as urls:
        assert await query(urls, "SELECT answer FROM recovered") == 42


def test_a_server_that_ended_by_itself_is_noticed(folder: Path) -> None:
    with only_valkey(folder) as urls:
        urls.children[0].process.kill()
        urls.children[0].process.wait()
        assert "the embedded valkey ended" in str(urls.died())


async def test_a_database_left_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    with both(tmp_path) as urls:
        assert await query(urls, "SELECT 1") == 1


def test_a_server_that_does_not_come_up_says_why_and_where_to_read_on(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o700)
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(EmbeddedError, match=r"postgres did not start: .+postgres\.log\)$"), both(tmp_path):
        pass

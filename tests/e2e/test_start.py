"""What keeps the service from starting: one line that says what to mend, exit code 1, and no secret in it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.service import Service, spawned

SECRET = "s3cret-s3cret-s3cret"


def complaint(data_dir: Path, **settings: object) -> str:
    """Starts a service that cannot start, and returns the one line that says why."""
    with spawned(data_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings) as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert output == ""
    lines = [line for line in str(errors).splitlines() if "making the database" not in line]
    assert len(lines) == 1, errors
    assert SECRET not in errors
    return lines[0].removeprefix("chatback: ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grpc_port": 70000}, ["CHATBACK_GRPC_PORT"]),
        ({"environment": "staging"}, ["CHATBACK_ENVIRONMENT"]),
        ({"environment": "production"}, ["CHATBACK_SECRET_KEY"]),
        ({"secret_key": SECRET, "context_tokens": "many"}, ["CHATBACK_SECRET_KEY", "CHATBACK_CONTEXT_TOKENS"]),
        ({"database_url": "nonsense", "redis_url": "redis://127.0.0.1:1"}, ["CHATBACK_DATABASE_URL"]),
        ({"database_url": f"postgresql://u:{SECRET}@127.0.0.1:1/db"}, ["CHATBACK_DATABASE_URL"]),
        ({"database_url": f"postgresql://u:{SECRET}@127.0.0.1:port/db"}, ["CHATBACK_DATABASE_URL"]),
        ({"openai_base_url": "127.0.0.1:8000"}, ["CHATBACK_OPENAI_BASE_URL"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_is_wrong_is_named_in_one_line(
    tmp_path: Path, service: Service, settings: dict[str, object], words: list[str]
) -> None:
    if "database_url" in settings:
        settings = {"redis_url": service.urls["redis_url"], **settings}
    line = complaint(tmp_path / "data", **settings)
    assert all(word in line for word in words)


def test_a_redis_url_that_is_none_is_named_in_one_line(tmp_path: Path, service: Service) -> None:
    settings = {**service.urls, "redis_url": "nonsense"}
    assert "CHATBACK_REDIS_URL" in complaint(tmp_path / "data", **settings)


@pytest.mark.parametrize(("old", "new"), [("chatback@", "nobody-known@"), ("/chatback?", "/missing?")])
def test_an_unknown_user_or_database_is_told_in_one_line(tmp_path: Path, service: Service, old: str, new: str) -> None:
    url = service.urls["database_url"].replace(f"//{old}", f"//{new}").replace(f"@{old}", f"@{new}")
    line = complaint(tmp_path / "data", **{**service.urls, "database_url": url})
    assert "CHATBACK_DATABASE_URL" in line


async def test_a_wrong_password_of_the_database_is_told_in_one_line(tmp_path: Path, service: Service) -> None:
    async with await asyncio.start_server(refuse_passwords, "127.0.0.1", 0) as database:
        port = database.sockets[0].getsockname()[1]
        settings = {**service.urls, "database_url": f"postgresql://chatback:{SECRET}@127.0.0.1:{port}/chatback"}
        assert "CHATBACK_DATABASE_URL" in await asyncio.to_thread(complaint, tmp_path / "data", **settings)


async def refuse_passwords(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks as much of PostgreSQL's protocol as it takes to refuse a password: no TLS, a question, an error."""
    if (await message_of(reader))[:4] == b"\x04\xd2\x16\x2f":  # asks for TLS
        writer.write(b"N")
        await message_of(reader)
    writer.write(b"R\0\0\0\x08\0\0\0\x03")
    await reader.readexactly(1)
    await message_of(reader)
    fields = b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0"
    writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
    writer.close()


async def message_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)


def test_a_port_in_use_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"127.0.0.1:{port}" in complaint(tmp_path / "data", grpc_port=port)
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_data_folder_in_use_is_told_in_one_line(service: Service) -> None:
    assert f"{service.data_dir} is in use" in complaint(service.data_dir)


def test_a_data_folder_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert f"{tmp_path / 'data'}" in complaint(tmp_path / "data")

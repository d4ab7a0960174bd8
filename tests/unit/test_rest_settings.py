"""Where REST listens, whom it trusts, and whose pages may call."""

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from entrypoints.rest.server import listen, private_address
from entrypoints.settings import SettingsError, read_settings


@pytest.fixture(autouse=True)
def _empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHATBACK_ENVIRONMENT", "development")


@pytest.mark.parametrize(
    ("grpc_port", "rest_port", "port"),
    [(None, None, 8080), ("50077", None, 8080), ("0", None, 0), ("0", "8081", 8081), ("50077", "0", 0)],
)
def test_the_port_is_8080_unless_any_free_one_will_do(
    monkeypatch: pytest.MonkeyPatch, grpc_port: str | None, rest_port: str | None, port: int
) -> None:
    for name, value in (("GRPC", grpc_port), ("REST", rest_port)):
        if value is not None:
            monkeypatch.setenv(f"CHATBACK_{name}_PORT", value)
    assert read_settings().serves_rest_on == port


def test_lists_have_commas_between_their_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATBACK_CORS_ORIGINS", "https://a.example, http://localhost:3000")
    monkeypatch.setenv("CHATBACK_TRUSTED_PROXIES", "10.0.0.0/8, ::1")
    settings = read_settings()
    assert settings.origins == ("https://a.example", "http://localhost:3000")
    assert settings.proxies == ("10.0.0.0/8", "::1")


def test_nobody_is_trusted_unless_it_is_said() -> None:
    assert (read_settings().origins, read_settings().proxies) == ((), ())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHATBACK_REST_PORT", "65999"),
        ("CHATBACK_CORS_ORIGINS", "a.example"),
        ("CHATBACK_CORS_ORIGINS", "https://a.example/path"),
        ("CHATBACK_TRUSTED_PROXIES", "proxy.example"),
        ("CHATBACK_TRUSTED_PROXIES", "*"),
        ("CHATBACK_TRUSTED_PROXIES", "10.0.0.1/8"),
    ],
)
def test_what_makes_no_sense_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        read_settings()


def test_the_socket_to_grpc_is_in_a_folder_that_is_the_owner_s_alone_and_goes_with_it() -> None:
    with private_address() as address:
        folder = Path(address.removeprefix("unix:")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_the_socket_to_grpc_has_a_short_path_wherever_temporary_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with private_address() as address:
        assert len(address.removeprefix("unix:")) <= 107


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_it_listens_on_ipv6_where_it_is_told_to() -> None:
    with listen("::1", 0) as listener:
        assert listener.family is socket.AF_INET6

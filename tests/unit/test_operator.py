"""The first user's password is made once and kept where only its owner reads it."""

import stat
from pathlib import Path

import pytest

from entrypoints.operator import FILE, Operator, load_operator, load_or_create_operator


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_operator_is_made_once(tmp_path: Path) -> None:
    made = load_or_create_operator(tmp_path, "op@localhost")
    assert load_or_create_operator(tmp_path, "other@localhost") == made == load_operator(tmp_path)
    assert made.email == "op@localhost"


def test_two_deployments_have_different_passwords(tmp_path: Path) -> None:
    one, two = (load_or_create_operator(tmp_path / name, "op@localhost") for name in ("one", "two"))
    assert one.password != two.password


def test_a_password_is_long(tmp_path: Path) -> None:
    assert len(load_or_create_operator(tmp_path, "op@localhost").password) >= 32


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    load_or_create_operator(tmp_path / "data", "op@localhost")
    assert (mode(tmp_path / "data"), mode(tmp_path / "data" / FILE)) == (0o700, 0o600)


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert load_operator(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"email": "op@localhost"}'])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(OSError, match=FILE):
        load_or_create_operator(tmp_path, "op@localhost")
    assert (tmp_path / FILE).read_text() == content


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        load_or_create_operator(tmp_path / "file", "op@localhost")


def test_a_password_does_not_show_in_a_representation() -> None:
    assert "hunter2" not in repr(Operator("op@localhost", "hunter2"))

"""The first user's password is made once and kept where only its owner reads it."""

import stat
from pathlib import Path

import pytest

from entrypoints.operator import FILE, Operator, bootstrap_operator, load_operator


class Users:
    """Who is there already; takes in those who are new."""

    def __init__(self, *emails: str) -> None:
        self.passwords = dict.fromkeys(emails, "another")

    async def ensure(self, email: str, password: str) -> bool:
        return self.passwords.setdefault(email, password) is password


async def bootstrapped(folder: Path, users: Users | None = None, email: str = "op@localhost") -> Operator:
    """Returns the operator whom the folder tells of, after a start."""
    await bootstrap_operator(folder, email, (users or Users()).ensure)
    operator = load_operator(folder)
    assert operator is not None
    return operator


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_an_operator_is_made_once(tmp_path: Path) -> None:
    users = Users()
    made = await bootstrapped(tmp_path, users)
    assert await bootstrapped(tmp_path, users, "other@localhost") == made
    assert users.passwords == {"op@localhost": made.password}


async def test_an_empty_database_gets_the_operator_of_the_folder(tmp_path: Path) -> None:
    made, users = await bootstrapped(tmp_path), Users()
    assert "made just now" in await bootstrap_operator(tmp_path, "op@localhost", users.ensure)
    assert users.passwords == {"op@localhost": made.password}


async def test_no_password_is_kept_for_an_operator_who_has_another(tmp_path: Path) -> None:
    told = await bootstrap_operator(tmp_path, "op@localhost", Users("op@localhost").ensure)
    assert "another data folder" in told
    assert load_operator(tmp_path) is None


async def test_two_deployments_have_different_passwords(tmp_path: Path) -> None:
    assert (await bootstrapped(tmp_path / "one")).password != (await bootstrapped(tmp_path / "two")).password


async def test_a_password_is_long(tmp_path: Path) -> None:
    assert len((await bootstrapped(tmp_path)).password) >= 32


async def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    await bootstrapped(tmp_path / "data")
    assert (mode(tmp_path / "data"), mode(tmp_path / "data" / FILE)) == (0o700, 0o600)


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert load_operator(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"email": "op@localhost"}'])
async def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(OSError, match=FILE):
        await bootstrapped(tmp_path)
    assert (tmp_path / FILE).read_text() == content


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        await bootstrapped(tmp_path / "file")


def test_a_password_does_not_show_in_a_representation() -> None:
    assert "hunter2" not in repr(Operator("op@localhost", "hunter2"))

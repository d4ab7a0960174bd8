"""What ./bin/dev does before and around its commands; installing anew takes too long to be proved here."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOOR = Path(__file__).resolve().parents[2] / "bin" / "dev"


def knock(door: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, door, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def inside(door: Path) -> dict[str, Any]:
    return runpy.run_path(str(door))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The door of a repository that was never set up, in a folder with a space in its name."""
    root = tmp_path / "a copy"
    (root / "bin").mkdir(parents=True)
    shutil.copytree(DOOR.parents[1] / "requirements", root / "requirements")
    return Path(shutil.copy(DOOR, root / "bin" / "dev"))


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_names_every_command_and_sets_nothing_up(copy: Path, words: tuple[str, ...]) -> None:
    answer = knock(copy, *words)
    assert answer.returncode == 0
    assert all(f"./bin/dev {command}" in answer.stdout for command in inside(copy)["COMMANDS"])
    assert not (copy.parents[1] / ".venv").exists()


def test_an_unknown_command_is_refused_in_one_line_before_any_set_up(copy: Path) -> None:
    answer = knock(copy, "serve")
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == ["bin/dev: no command 'serve'; ./bin/dev --help lists them"]
    assert not (copy.parents[1] / ".venv").exists()


def test_it_finds_its_repository_through_a_link_and_from_any_folder(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(copy)
    assert knock(link, "--help", cwd=Path("/")).returncode == 0
    assert inside(link)["ROOT"] == copy.parents[1]


def test_a_repository_never_set_up_has_no_valid_stamp(copy: Path) -> None:
    assert not inside(copy)["stamp_is_current"]()


def test_a_stamp_holds_until_a_lock_changes(copy: Path) -> None:
    door = inside(copy)
    door["STAMP"].parent.mkdir()
    door["STAMP"].write_text("\n".join(door["expected_stamp"]()))
    assert door["stamp_is_current"]()
    (copy.parents[1] / "requirements" / "dev.txt").write_text("other==1\n")
    assert not door["stamp_is_current"]()


def test_a_stamp_does_not_hold_where_the_repository_was_moved_to(copy: Path) -> None:
    door = inside(copy)
    door["STAMP"].parent.mkdir()
    door["STAMP"].write_text("\n".join(door["expected_stamp"]()))
    moved = copy.parents[1].rename(copy.parents[2] / "moved")
    assert not inside(moved / "bin" / "dev")["stamp_is_current"]()


def test_the_locks_name_hashes_and_no_addresses() -> None:
    for lock in ("uv.txt", "runtime.txt", "dev.txt"):
        text = (DOOR.parents[1] / "requirements" / lock).read_text()
        assert text.count("==") <= text.count("--hash=sha256:")
        assert "://" not in text

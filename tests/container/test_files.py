"""compose.yaml and shell.nix, read by the tools they are for, where those are installed."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.container.docker import docker
from tests.e2e.service import ROOT

pytestmark = pytest.mark.timeout(500)  # the first test waits for the image


def compose() -> list[str]:
    """Returns the words that begin a command of Compose."""
    if "compose" in docker("--help"):
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        pytest.skip("Compose is not installed")
    return ["docker-compose"]


def printed(*command: str) -> list[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()


def test_compose_runs_the_service_postgresql_and_redis_without_being_told_anything() -> None:
    assert set(printed(*compose(), "config", "--services")) >= {"chatback", "postgres", "redis"}


def test_nix_reads_the_shell() -> None:
    if shutil.which("nix-instantiate") is None:
        pytest.skip("Nix is not installed")
    assert printed("nix-instantiate", "--parse", "shell.nix")

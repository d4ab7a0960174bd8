"""The service against its own OpenAPI document: made-up requests, right and wrong ones, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import copied
from tests.e2e.rest import rest_service, sign_in

LOGOUT = "AuthService_Logout"
"""Called alone: after it a token is good for nothing."""


@pytest.fixture(scope="module")
def url(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service answers."""
    with rest_service(copied(template, tmp_path_factory.mktemp("schemathesis") / "data")) as serving:
        yield serving


def tried(url: str, folder: Path, *options: str) -> list[dict[str, Any]]:
    """Lets schemathesis try the service, and returns all that was asked and answered."""
    log = folder / "log.har"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *options]
    command += ["--header", f"Authorization: Bearer {sign_in(url)}", "--seed", "1", "--max-examples", "15"]
    command += ["--phases", "examples,coverage,fuzzing", "--request-timeout", "10", "--continue-on-failure"]
    # Which ids, tokens and addresses there are is more than a schema can say.
    command += ["--exclude-checks", "positive_data_acceptance", "--no-color", "--report-har-path", str(log)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(log.read_text())["log"]["entries"])


def test_every_answer_is_as_the_document_says_and_wrong_requests_are_refused(url: str, tmp_path: Path) -> None:
    found = tried(url, tmp_path, "--exclude-operation-id", LOGOUT)
    kinds = {entry["response"]["content"]["mimeType"].partition(";")[0] for entry in found}
    assert kinds >= {"application/json", "text/event-stream"}
    assert not [entry for entry in found if entry["response"]["status"] >= 500]


def test_a_logout_is_as_the_document_says(url: str, tmp_path: Path) -> None:
    found = tried(url, tmp_path, "--include-operation-id", LOGOUT)
    assert {entry["response"]["status"] for entry in found} >= {200, 401}

"""A service of one's own for calls over HTTP, and somebody who is signed in there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

from tests.e2e.caller import PASSWORD
from tests.e2e.service import running

READY = "REST on "


@contextmanager
def rest_service(data_dir: Path) -> Iterator[str]:
    """Serves until the end of the block, to anybody as often as they like, and gives the URL."""
    with running(data_dir, calls_per_second=100_000, calls_burst=100_000) as service:
        assert service.process.stdout is not None
        line = next(line for line in service.process.stdout if line.startswith(READY))
        yield line.removeprefix(READY).partition(",")[0]
        assert "Traceback" not in service.said


def sign_in(url: str) -> str:
    """Registers somebody new and returns an access token."""
    person = {"email": f"{uuid4()}@example.org", "password": PASSWORD}
    post(f"{url}/v1/auth:register", person)
    return str(post(f"{url}/v1/auth:login", person)["tokens"]["accessToken"])


def post(url: str, body: dict[str, Any]) -> Any:
    """Sends JSON and returns what is answered."""
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=10) as response:
        return json.load(response)

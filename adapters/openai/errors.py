"""What an endpoint says when it does not answer, in the words of domain.errors."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from domain.errors import (
    ModelError,
    ModelKeyRefused,
    ModelRateLimited,
    ModelRefused,
    ModelUnavailable,
    ModelUnknown,
)

RETRY_SECONDS = 0.3
"""The wait before a second attempt where the endpoint names none."""
RETRY_LIMIT_SECONDS = 10.0
"""A longer wait than this is not worth the caller's: the first failure is told instead."""
_RETRIED = frozenset({429, 500, 502, 503, 504})
_STATUS = {
    "model_not_found": 404,
    "not_found_error": 404,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "server_error": 500,
    "overloaded_error": 503,
}
"""What an error's `code` or, failing that, its `type` would be as an HTTP status."""
_KEY = re.compile(r"\b(sk|key)-[\w*-]+")


class EndpointError(Exception):
    """An endpoint's own word, from a response's status and body or an event of the stream: for logs, not for callers.

    `retry_after` is in seconds; None where the same request has no chance.
    """

    def __init__(self, status: int, body: object, retry_after: str = "") -> None:
        error = body.get("error") or body if isinstance(body, dict) else body
        said: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
        self.status = _status(status, said)
        self.retry_after = _seconds(retry_after) if self._may_pass(said) else None
        super().__init__(f"status {self.status}: {_KEY.sub('[key]', str(said.get('message') or said))[:300]}")

    def _may_pass(self, said: dict[str, Any]) -> bool:
        return self.status in _RETRIED and said.get("code") != "insufficient_quota"


def model_error(refusal: EndpointError, model: str) -> ModelError:
    """Returns what callers are told of a refusal."""
    match refusal.status:
        case 401 | 403:
            return ModelKeyRefused()
        case 404:
            return ModelUnknown(model)
        case 429:
            return ModelRateLimited()
        case status if 300 <= status < 500:
            return ModelRefused(status)
    return ModelUnavailable()


def retry_delay(error: ModelError) -> float | None:
    """Returns how many seconds to wait before trying again; None where that is hopeless or too long to wait for."""
    if not isinstance(error.__cause__, EndpointError):
        return RETRY_SECONDS
    wait = error.__cause__.retry_after
    return wait if wait is not None and wait <= RETRY_LIMIT_SECONDS else None


def _status(status: int, said: dict[str, Any]) -> int:
    """Returns the HTTP status that fits best: the error's own word inside a 200, or where it means the model's name."""
    code, kind = said.get("code"), said.get("type")
    stated = code if isinstance(code, int) else _STATUS.get(str(code)) or _STATUS.get(str(kind), 0)
    return stated if status < 300 or stated == 404 else status


def _seconds(retry_after: str) -> float:
    """Returns a Retry-After header, in either of its forms, as seconds from now."""
    try:
        return max(float(retry_after), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return RETRY_SECONDS

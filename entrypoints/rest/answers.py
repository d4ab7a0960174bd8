"""Answers with a body, and the errors among them: JSON as AIP-193 has it."""

import math
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from starlette.types import Send

from entrypoints.rest.refusals import Header

HTTP_STATUSES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""The mapping of google/rpc/code.proto."""
JSON = b"application/json"
_PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `media_type` is empty where there is no body."""

    status: int
    body: bytes
    media_type: bytes = JSON
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send, request_id: str, *, ends: bool = True) -> None:
        """Sends all of it; where it does not end the answer, whoever calls does."""
        await send({"type": "http.response.start", "status": self.status, "headers": self._head(request_id)})
        await send({"type": "http.response.body", "body": self.body, "more_body": not ends})

    def _head(self, request_id: str) -> list[Header]:
        content = (
            ((b"content-type", self.media_type), (b"content-length", b"%d" % len(self.body))) if self.media_type else ()
        )
        return [*content, *_PRIVATE, *self.headers, (b"x-request-id", request_id.encode())]


def error_answer(status: status_pb2.Status, http: int | None = None, headers: tuple[Header, ...] = ()) -> Answer:
    """Returns the answer for a status that is not OK, under the HTTP status that fits it unless one is given."""
    http = http or HTTP_STATUSES[_code(status)]
    return Answer(http, error_json(status, http), headers=(*headers, *_challenge(http), *_retry_after(status)))


def error_json(status: status_pb2.Status, http: int | None = None) -> bytes:
    """Returns `{"error": {"code", "message", "status", "details"}}`."""
    plain = json_format.MessageToDict(status)
    error: dict[str, Any] = {
        "code": http or HTTP_STATUSES[_code(status)],
        "message": status.message,
        "status": _code(status).name,
        "details": plain.get("details", []),
    }
    return msgspec.json.encode({"error": error})


def _code(status: status_pb2.Status) -> grpc.StatusCode:
    return grpc.StatusCode[code_pb2.Code.Name(status.code)]


def _challenge(http: int) -> tuple[Header, ...]:
    return ((b"www-authenticate", b"Bearer"),) if http == 401 else ()


def _retry_after(status: status_pb2.Status) -> tuple[Header, ...]:
    """Returns the header in whole seconds, rounded up, where the status has a RetryInfo."""
    retry = error_details_pb2.RetryInfo()
    if not any(detail.Unpack(retry) for detail in status.details):
        return ()
    return ((b"retry-after", b"%d" % math.ceil(retry.retry_delay.ToTimedelta().total_seconds())),)

"""Answers that are errors: AIP-193 as JSON Schema, and one response for each status of an operation."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from entrypoints.grpc.errors import ERROR_DOMAIN
from tools.openapi.failures import Failure, described
from tools.openapi.schemas import Schema

_HEADERS: Mapping[int, tuple[str, ...]] = {401: ("WWW-Authenticate",), 426: ("Upgrade",), 429: ("Retry-After",)}
"""What answers of a status bear besides X-Request-Id."""
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


class ErrorResponses:
    """Writes responses, and gathers in `components` those that are the same wherever they stand."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}

    def of(self, http: int, failures: Sequence[Failure]) -> Schema:
        """Returns the response of a status; one that has a single cause is the same for all operations."""
        names = ("X-Request-Id", *_HEADERS.get(http, ()))
        headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        text = f"{', '.join(failure.reason for failure in failures)}.\n\n{described(failures)}"
        response = {"description": text, "headers": headers, "content": _ERROR}
        if len(failures) > 1:
            return response
        self.components[failures[0].reason] = response
        return {"$ref": f"#/components/responses/{failures[0].reason}"}


def error_schemas(reasons: Sequence[str]) -> dict[str, Schema]:
    """Returns the schemas of an error and of its details."""
    text, strings = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
    violation = _object("", field=_told("The field, by its path in the request.", text), description=text)
    return {
        "Error": _object(
            "Why a call failed. Programs should go by the reason in ErrorInfo; the message is for people.",
            error=_object(
                "",
                code=_told("The HTTP status.", {"type": "integer"}),
                message=_told("One sentence in English for people. It may change.", text),
                status=_told("The code of gRPC.", {"type": "string", "enum": [code.name for code in grpc.StatusCode]}),
                details={"type": "array", "items": {"oneOf": [_ref(name) for name in _DETAILS]}},
            ),
        ),
        "ErrorInfo": _detail(
            "ErrorInfo",
            "Why, for programs. Every error has one.",
            optional=("metadata",),
            reason={"type": "string", "enum": list(reasons)},
            domain={"const": ERROR_DOMAIN},
            metadata=_told("More about it, under the keys that the reason names.", strings),
        ),
        "BadRequest": _detail(
            "BadRequest", "Which field is wrong, and how.", fieldViolations={"type": "array", "items": violation}
        ),
        "RetryInfo": _detail(
            "RetryInfo",
            "When to try again.",
            retryDelay=_told("How long to wait, in seconds.", {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?s$"}),
        ),
    }


HEADERS: dict[str, Schema] = {
    "X-Request-Id": {"description": "The name of the call in the service's log.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "How long to wait, in seconds, where the cause goes away by itself.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "How to sign calls.", "required": True, "schema": {"const": "Bearer"}},
    "Upgrade": {"description": "The version of HTTP to use.", "required": True, "schema": {"const": "HTTP/1.1"}},
}
_DETAILS = ("ErrorInfo", "BadRequest", "RetryInfo")


def _detail(name: str, text: str, *, optional: tuple[str, ...] = (), **properties: Schema) -> Schema:
    kind = {"@type": {"const": f"type.googleapis.com/google.rpc.{name}"}}
    return _object(text, optional=optional, **kind, **properties)


def _object(text: str, *, optional: tuple[str, ...] = (), **properties: Any) -> Schema:
    needed = [name for name in properties if name not in optional]
    return _told(text, {"type": "object", "properties": properties, "required": needed})


def _told(text: str, schema: Schema) -> Schema:
    return {"description": text, **schema} if text else schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
